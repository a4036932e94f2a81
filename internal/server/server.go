package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/chat"
	"parley/internal/config"
	"parley/internal/gateway"
	"parley/internal/moderation"
	"parley/internal/rest"
	"parley/internal/schema"
	"parley/internal/sqldb"
)

const (
	readinessDelay  = 100 * time.Millisecond // between "not ready" and the first closed connection
	databaseTimeout = time.Minute            // to open and migrate
)

// Run serves until ctx ends, and then drains. started is called once, with the address, when clients are taken.
func Run(ctx context.Context, cfg *config.Serve, log *slog.Logger, started func(addr string)) (err error) {
	// What was built is taken down in the reverse order.
	var closers []func() error
	defer func() {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
	}()

	listener, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close() // http.Server closes it first; a second time does nothing
	if err := os.MkdirAll(cfg.Data.Data, 0o700); err != nil {
		return fmt.Errorf("the data folder (--data) cannot be made: %w", err)
	}
	db, err := OpenDatabase(ctx, cfg.Database, cfg.Data, log)
	if err != nil {
		return err
	}
	closers = append(closers, db.Close)
	hints, err := bus.Open(ctx, bus.Options{
		URL: cfg.NATSURL, ClusterListen: cfg.ClusterListen, ClusterRoutes: cfg.ClusterRoutes,
		NoEcho: true, // a node hears its own commits before it tells them
		Log:    log,
	})
	if err != nil {
		return err
	}
	closers = append(closers, func() error { hints.Close(); return nil })
	verifier, err := NewVerifier(cfg.Tokens, cfg.Data, log)
	if err != nil {
		return err
	}
	closers = append(closers, func() error { verifier.Close(); return nil })
	keys, err := auth.NewAPIKeys(cfg.APIKey)
	if err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	users := auth.NewUsers(db, time.Now)
	shared := cfg.NATSURL != "" || cfg.ClusterListen != ""
	var nodes *bus.Bus
	if shared {
		nodes = hints
	}
	sockets := gateway.New(limited(cfg), gateway.Options{
		AllowedOrigins: cfg.CORSOrigins, TrustedProxies: cfg.Proxies(), ShutdownSpread: cfg.DrainTimeout / 10, Nodes: nodes, Log: log,
		Replay: gateway.ReplayLimits{ChangesMax: cfg.Chat.ReplayChangesMax, BytesMax: int(cfg.Chat.ReplayBytesMax)},
	})
	domain, err := chat.New(ctx, chat.Parts{
		DB: db, Bus: hints, EnsureUsers: users.Ensure, Log: log, Now: time.Now, Metrics: registry, Handle: sockets.Apply, Present: sockets.Present, Lost: sockets.Lost,
	}, chat.Options{
		BatchMax: cfg.Chat.BatchMax, QueueMax: cfg.Chat.QueueMax, QueueTimeMax: cfg.Chat.QueueTimeMax, PollEvery: cfg.Chat.PollInterval,
		Judge:                judge(moderation.NewRules(cfg.ModerationWords)),
		ModerationFailClosed: cfg.ModerationFailClosed,
		Shared:               shared,
	})
	if err != nil {
		return err
	}
	if err := sockets.Serve(gateway.Parts{Chat: domain, Users: users, Verifier: verifier, Log: log, Now: time.Now, Metrics: registry}); err != nil {
		return errors.Join(err, sockets.Shutdown(ctx))
	}
	observe(registry, db, hints)

	if err := domain.Start(ctx); err != nil {
		return errors.Join(err, sockets.Shutdown(ctx))
	}
	var draining atomic.Bool
	ready := func(ctx context.Context) error {
		if draining.Load() {
			return errors.New("draining")
		}
		return db.Read(ctx, func(tx *sqldb.Tx) error {
			var one int
			_, err := tx.One(ctx, []any{&one}, "SELECT 1")
			return err
		})
	}
	routes := rest.New(rest.Parts{
		Chat: domain, Users: users, Verifier: verifier, Keys: keys, Ready: ready, Metrics: registry, Log: log, AllowedOrigins: cfg.CORSOrigins,
	})
	// A ServeMux would answer an unclean path with a redirect in HTML before rest sees it.
	pick := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, gateway.Path) {
			sockets.ServeHTTP(w, r)
		} else {
			routes.ServeHTTP(w, r)
		}
	})
	web := &http.Server{
		Handler: pick, ReadHeaderTimeout: cfg.HeaderTimeout, ReadTimeout: cfg.RequestTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxHeaderBytes: int(cfg.HeaderBytesMax), // a WebSocket leaves all of these behind when it is hijacked
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}

	// The workers outlive the connections, so that what was accepted is committed.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var workers sync.WaitGroup
	workers.Go(func() { _ = domain.Run(work) })  // ends with work's error
	workers.Go(func() { _ = sockets.Run(work) }) // likewise
	workers.Go(func() { giveBackMemory(work, db) })
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	started(listener.Addr().String())

	var failed error
	select {
	case <-ctx.Done():
		log.Info("draining", "timeout", cfg.DrainTimeout)
	case failed = <-served:
		failed = fmt.Errorf("serve: %w", failed)
	}
	draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	time.Sleep(readinessDelay)
	failed = errors.Join(failed, late("closing sockets", sockets.Shutdown(drain)), late("closing requests", web.Shutdown(drain)))
	stopWork()
	workers.Wait()
	if failed == nil {
		log.Info("stopped")
	}
	return failed
}

// limited is what bounds the gateway, unless all that is to be lifted.
func limited(cfg *config.Serve) config.Gateway {
	if cfg.RateLimits == "off" {
		return cfg.Gateway.Unlimited()
	}
	return cfg.Gateway
}

// late names what did not end in time.
func late(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func judge(rules *moderation.Rules) func(context.Context, string) (bool, error) {
	return func(_ context.Context, text string) (bool, error) { return rules.Judge(text).Flagged, nil }
}

// listen opens the port, and names the setting to change when it cannot.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the address %s is in use by another program; choose another with --listen or PARLEY_LISTEN (or PORT)", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (--listen): %w", addr, err)
	}
	return l, nil
}

// OpenDatabase opens the database and brings its schema up to date.
func OpenDatabase(ctx context.Context, database config.Database, data config.Data, log *slog.Logger) (*sqldb.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if err := os.MkdirAll(filepath.Clean(data.Data), 0o700); err != nil {
		return nil, fmt.Errorf("the data folder (--data) cannot be made: %w", err)
	}
	db, err := sqldb.Open(ctx, sqldb.Options{URL: database.Source(data), Logger: log})
	if err != nil {
		return nil, err
	}
	applied, err := schema.Migrate(ctx, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if applied > 0 {
		log.Info("the database was migrated", "migrations", applied, "engine", db.Dialect())
	}
	return db, nil
}

// NewVerifier makes the verifier of tokens that the configuration asks for, and the secret of the data
// folder when it asks for none.
func NewVerifier(t config.Tokens, data config.Data, log *slog.Logger) (*auth.Verifier, error) {
	secret, err := Secret(t, data)
	if err != nil {
		return nil, err
	}
	v, err := auth.NewVerifier(auth.VerifierOptions{
		Secret: secret, KeyFile: t.JWTKeyFile, JWKSURL: t.JWKSURL, Audience: t.JWTAudience, Issuer: t.JWTIssuer, Now: time.Now, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("the keys of tokens (--jwt-secret, --jwt-key-file, --jwks-url): %w", err)
	}
	return v, nil
}

// Secret is what HS256 tokens are signed with; empty when only keys are configured.
func Secret(t config.Tokens, data config.Data) ([]byte, error) {
	if t.OwnSecret() {
		return auth.LoadSecret(data.Data)
	}
	return []byte(t.JWTSecret), nil
}
