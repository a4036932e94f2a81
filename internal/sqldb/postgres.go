package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// Session settings of every connection; PostgreSQL, "Client Connection Defaults" and "Write Ahead Log".
// The time-outs keep a node that froze in a transaction from holding a bucket.
var postgresSettings = map[string]string{
	"application_name":                    "parley",
	"synchronous_commit":                  "on",
	"idle_in_transaction_session_timeout": "1s",
	"lock_timeout":                        "5s",
	"statement_timeout":                   "10s",
	"tcp_user_timeout":                    "5s",
	"tcp_keepalives_idle":                 "10",
	"tcp_keepalives_interval":             "2",
	"tcp_keepalives_count":                "3",
	// A statement's plan is kept, and may have been made while its tables were empty: reading them whole and joining by
	// hash was right then, and would stay as they grow. Every query here finds its rows by an index.
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	// A join is written in the order in which it is to be done.
	"join_collapse_limit": "1",
	"from_collapse_limit": "1",
	// So there is nothing to gain from planning anew for the values at hand.
	"plan_cache_mode": "force_generic_plan",
}

type postgresEngine struct {
	conns     *pgxpool.Pool
	migration *sql.DB      // no time-outs
	snapshot  atomic.Int64 // of oldestSnapshot
	stop      context.CancelFunc
	ended     chan struct{}

	mu    sync.Mutex
	first []func(context.Context, conn) ([]statement, error) // see DB.OnConnect
}

func openPostgres(ctx context.Context, o Options) (engine, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// The parser's error may hold the URL, and that a password.
		return nil, errors.New("sqldb: the PostgreSQL URL cannot be read")
	}
	slow := cfg.ConnConfig.Copy()
	slow.RuntimeParams["application_name"] = "parley-migrate"
	for k, v := range postgresSettings {
		if _, given := cfg.ConnConfig.RuntimeParams[k]; !given || k == "synchronous_commit" {
			cfg.ConnConfig.RuntimeParams[k] = v
		}
	}
	cfg.ConnConfig.StatementCacheCapacity = statementsMax
	cfg.ConnConfig.OnNotice = noticed
	cfg.MaxConns = int32(o.Conns)
	if o.Conns == 0 {
		cfg.MaxConns = 16
	}
	e := &postgresEngine{migration: stdlib.OpenDB(*slow)}
	cfg.AfterConnect = e.connected
	e.migration.SetMaxIdleConns(0)
	if e.conns, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("sqldb: connect to PostgreSQL: %w", err), e.migration.Close())
	}
	if err := e.check(ctx); err != nil {
		e.conns.Close()
		return nil, errors.Join(err, e.migration.Close())
	}
	var run context.Context
	run, e.stop = context.WithCancel(context.Background())
	e.ended = make(chan struct{})
	go func() {
		defer close(e.ended)
		e.look(run, o.Logger)
	}()
	return e, nil
}

// check refuses a server that would lose what it acknowledged.
func (e *postgresEngine) check(ctx context.Context) error {
	for setting, want := range map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "server_encoding": "UTF8"} {
		var got string
		if err := e.conns.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&got); err != nil {
			return fmt.Errorf("sqldb: connect to PostgreSQL: %w", err)
		}
		if got != want {
			return fmt.Errorf("sqldb: PostgreSQL runs with %s=%s; Parley promises durability and needs %s", setting, got, want)
		}
	}
	return nil
}

// connectMax bounds what is done on a new connection before it is used.
const connectMax = 5 * time.Second

func (e *postgresEngine) onConnect(f func(context.Context, conn) ([]statement, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.first = append(e.first, f)
}

// connected does what comes first on a new connection; when that fails, the pool gives the connection up.
func (e *postgresEngine) connected(ctx context.Context, c *pgx.Conn) error {
	e.mu.Lock()
	first := e.first[:len(e.first):len(e.first)]
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, connectMax)
	defer cancel()
	for _, f := range first {
		if err := e.writeOn(ctx, c, func(c conn) ([]statement, error) { return f(ctx, c) }); err != nil {
			return err
		}
	}
	return nil
}

func (e *postgresEngine) trim(context.Context) {} // PostgreSQL's caches are its own.

func (e *postgresEngine) pool() *sql.DB { return e.migration }

// lookEvery is how often a node looks after the server's own affairs.
const lookEvery = 2 * time.Second

// look keeps the planner's knowledge fresh, and watches for what slows every send, until ctx ends.
func (e *postgresEngine) look(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := errors.Join(e.analyze(ctx), e.watch(ctx)); err != nil && ctx.Err() == nil {
			log.Debug("the database could not be looked after", "err", err)
		}
	}
}

// analyze has PostgreSQL look at tables that have grown much since it last did. Autovacuum does so too, but only once a
// minute by default, and in the first minutes of a busy database the plans that were made for empty tables cost most.
func (e *postgresEngine) analyze(ctx context.Context) error {
	rows, err := e.conns.Query(ctx, `SELECT quote_ident(schemaname) || '.' || quote_ident(relname) FROM pg_stat_user_tables
		WHERE n_mod_since_analyze > 1000 + n_live_tup / 2 AND schemaname = ANY (current_schemas(false))`)
	if err != nil {
		return err
	}
	grown, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, table := range grown {
		if err == nil {
			_, err = e.conns.Exec(ctx, "ANALYZE "+table)
		}
	}
	return err
}

// watch notes the age of the oldest snapshot: what it can still see of rows that were changed cannot be cleared, and each
// send passes over it. Of other roles' transactions PostgreSQL tells only a superuser or a member of pg_monitor.
func (e *postgresEngine) watch(ctx context.Context) error {
	var seconds float64
	err := e.conns.QueryRow(ctx, `SELECT COALESCE(EXTRACT(EPOCH FROM now() - MIN(xact_start)), 0)::FLOAT8 FROM pg_stat_activity
		WHERE backend_xmin IS NOT NULL AND datname = current_database()`).Scan(&seconds)
	if err == nil {
		e.snapshot.Store(int64(seconds * float64(time.Second)))
	}
	return err
}

func (e *postgresEngine) oldestSnapshot() time.Duration { return time.Duration(e.snapshot.Load()) }

func (e *postgresEngine) close() error {
	e.stop()
	<-e.ended
	e.conns.Close()
	return e.migration.Close()
}

// rollbackMax bounds the end of a transaction that has failed; PostgreSQL ends it by itself when the connection goes.
const rollbackMax = time.Second

func (e *postgresEngine) write(ctx context.Context, _ bool, f func(conn) ([]statement, error)) error {
	pooled, err := e.conns.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("sqldb: connect: %w", postgresFault(err))
	}
	defer pooled.Release() // which closes a connection that is still in a transaction
	return e.writeOn(ctx, pooled.Conn(), f)
}

func (e *postgresEngine) writeOn(ctx context.Context, on *pgx.Conn, f func(conn) ([]statement, error)) error {
	c := &postgresConn{conn: on, begin: "begin"}
	last, err := f(c)
	if err != nil {
		return rolledBack(postgresFault(err), c.rollback(ctx))
	}
	if c.begin != "" && len(last) == 0 {
		return nil // nothing was done
	}
	delete(c.conn.PgConn().CustomData(), warned)
	tag, err := c.batch(ctx, last, "commit")
	_, doubtful := c.conn.PgConn().CustomData()[warned]
	pe, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil && !doubtful && tag.String() == "COMMIT":
		return nil
	case err == nil && !doubtful: // It says ROLLBACK, of a transaction that has failed.
		return fmt.Errorf("sqldb: commit: %s", tag)
	case answered && pe.SeverityUnlocalized == "ERROR", !answered && err != nil && pgconn.SafeToRetry(err):
		// A statement failed, or nothing was sent.
		return rolledBack(postgresFault(err), c.rollback(ctx))
	case err == nil:
		err = errors.New("sqldb: the server warned")
	}
	// The connection, the context or the server's process ended first, and the server may have committed; or the wait for a
	// standby was cut short, and it has, but not durably.
	return fmt.Errorf("%w: %w: %w", ErrCommitUnknown, ErrUnavailable, err)
}

// warned is the key under which a connection notes that its server has warned of something. PostgreSQL, "synchronous_commit":
// a commit whose wait for the standby is cancelled, by a time-out too, succeeds with no more than a warning.
const warned = "warned"

func noticed(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		c.CustomData()[warned] = true
	}
}

func (e *postgresEngine) read(ctx context.Context, f func(conn) error) error {
	pooled, err := e.conns.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("sqldb: connect: %w", postgresFault(err))
	}
	defer pooled.Release()
	c := &postgresConn{conn: pooled.Conn(), begin: "begin isolation level repeatable read read only"}
	defer func() {
		_ = c.rollback(ctx) // Nothing was written, and a broken connection is dropped by the pool.
	}()
	return postgresFault(f(c))
}

// postgresConn is a connection in a transaction, which begins with the first statements.
type postgresConn struct {
	conn  *pgx.Conn
	begin string // "" once it has begun
}

func (c *postgresConn) run(ctx context.Context, all []statement) error {
	_, err := c.batch(ctx, all, "")
	return err
}

// batch sends all statements at once, the beginning of the transaction before them if it is due, and end after them
// unless that is empty, whose tag it returns. PostgreSQL, "Pipelining": after one that fails the rest is skipped.
func (c *postgresConn) batch(ctx context.Context, all []statement, end string) (tag pgconn.CommandTag, err error) {
	var b pgx.Batch
	if c.begin != "" {
		b.Queue(c.begin)
		c.begin = ""
	}
	for i := range all {
		s := &all[i]
		q := b.Queue(s.text, s.args...)
		switch {
		case s.scan != nil:
			q.Query(func(rows pgx.Rows) error {
				for rows.Next() {
					if err := s.scan(rows); err != nil {
						return err
					}
				}
				return rows.Err()
			})
		case s.changed != nil:
			q.Exec(func(tag pgconn.CommandTag) error {
				*s.changed += tag.RowsAffected()
				return nil
			})
		}
	}
	if end != "" {
		b.Queue(end).Exec(func(t pgconn.CommandTag) error {
			tag = t
			return nil
		})
	}
	err = c.conn.SendBatch(ctx, &b).Close()
	return tag, err
}

// rollback ends a transaction that has begun. Where the connection is broken it has ended already.
func (c *postgresConn) rollback(ctx context.Context) error {
	if c.begin != "" || c.conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackMax)
	defer cancel()
	_, err := c.conn.Exec(ctx, "rollback")
	return err
}

// postgresFault names what is the matter with the server (PostgreSQL, "Error Codes") or with the way to it, and leaves
// what is the matter with the statement.
func postgresFault(err error) error {
	if err == nil {
		return nil
	}
	pe, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case answered && pe.Code == "53100": // disk_full
		return fmt.Errorf("%w: %w", ErrFull, err)
	case answered && (pe.Code[:2] == "08" || pe.Code[:2] == "53" || pe.Code[:2] == "57" || pe.Code == "25P03" || pe.Code == "55P03" || pe.Code == "25006"),
		// Connections, resources, an operator; idle in a transaction; a lock; a server that only reads.
		!answered && broken(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// broken tells whether the connection failed, or the time for it ran out.
func broken(err error) bool {
	_, network := errors.AsType[net.Error](err)
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	return network || connect || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err)
}
