package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// noAddress has no port at all. The server opens its routes only after it has tried to open its client port, and with
// DontListen it never tries: the routes would wait for ever. So a cluster node is given a client address that cannot be
// opened, which leaves it without a client port and goes on to the routes. Tests hold both.
const (
	noHost    = "127.0.0.1"
	noPort    = 1 << 16
	noAddress = "127.0.0.1:65536"
)

// startServer runs a NATS server in this process, and returns when it is ready.
func startServer(ctx context.Context, o Options, log *slog.Logger) (*server.Server, error) {
	options := &server.Options{
		DontListen:      true,
		NoSigs:          true,
		NoSystemAccount: true,
		MaxPayload:      PayloadBytesMax,
		PingInterval:    pingInterval,
		MaxPingsOut:     pingsOutMax,
	}
	if err := clusterOptions(options, o, log); err != nil {
		return nil, err
	}
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("bus: server: %w", err)
	}
	logs := &serverLog{log: log}
	srv.SetLoggerV2(logs, false, false, false)
	srv.Start()
	if err := ready(ctx, srv, logs, o.ClusterListen != ""); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	return srv, nil
}

// ready waits until srv takes connections, and routes if it is to.
func ready(ctx context.Context, srv *server.Server, logs *serverLog, cluster bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if cluster && srv.ClusterAddr() != nil || !cluster && srv.ReadyForConnections(time.Second) {
			return nil
		}
		if fatal := logs.fatal.Load(); fatal != nil {
			return fmt.Errorf("bus: server: %s", *fatal)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bus: server not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// clusterOptions makes the server a node of a cluster, if o says so.
func clusterOptions(options *server.Options, o Options, log *slog.Logger) error {
	if o.ClusterListen == "" {
		if len(o.ClusterRoutes) > 0 {
			return errors.New("bus: cluster routes need a cluster address to listen on")
		}
		return nil
	}
	listen, err := parseURL(o.ClusterListen, "nats")
	if err != nil {
		return fmt.Errorf("bus: cluster address: %w", err)
	}
	port, err := strconv.ParseUint(listen.Port(), 10, 16)
	if err != nil {
		return errors.New("bus: cluster address: no port")
	}
	options.DontListen = false
	options.Host, options.Port = noHost, noPort
	options.Cluster = server.ClusterOpts{
		Name:         "parley",
		Host:         listen.Hostname(),
		Port:         int(port),
		PoolSize:     1, // One account and one order: more connections between two nodes would only wait.
		PingInterval: pingInterval,
		MaxPingsOut:  pingsOutMax,
	}
	if options.Cluster.Host == "" {
		options.Cluster.Host = "0.0.0.0"
	}
	if port == 0 {
		options.Cluster.Port = server.RANDOM_PORT
	}
	if listen.User != nil {
		options.Cluster.Username = listen.User.Username()
		options.Cluster.Password, _ = listen.User.Password()
	} else if ip := net.ParseIP(options.Cluster.Host); options.Cluster.Host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		log.Warn("bus: the cluster port is open to the network without a password; set one as nats://user:password@host:port, or keep the network private")
	}
	for _, route := range o.ClusterRoutes {
		u, err := parseURL(route, "nats")
		if err != nil {
			return fmt.Errorf("bus: cluster route: %w", err)
		}
		if u.Port() == "" {
			return errors.New("bus: cluster route: no port")
		}
		options.Routes = append(options.Routes, u)
	}
	return nil
}

// parseURL reads host:port, with or without a scheme (one of those given; the first is the default) and
// user:password@. Its errors do not repeat s, which may hold a password.
func parseURL(s string, schemes ...string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = schemes[0] + "://" + s
	}
	u, err := url.Parse(s)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" {
		return nil, fmt.Errorf("not of the form %s://[user:password@]host:port", schemes[0])
	}
	return u, nil
}

func (b *Bus) stopServer() {
	if b.server == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// serverLog passes the log of the NATS server on: what is wrong as warnings and errors, its notices as debugging.
type serverLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[string]
}

func (l *serverLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write(slog.LevelWarn, format, v) }

// Fatalf is what the server calls when it cannot start; it must not end the process.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, noAddress) {
		return
	}
	l.fatal.Store(&text)
	l.write(slog.LevelError, format, v)
}

func (l *serverLog) write(level slog.Level, format string, v []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "bus: nats server", "text", fmt.Sprintf(format, v...))
	}
}
