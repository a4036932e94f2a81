package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
}

type postgresEngine struct {
	db        *sql.DB
	migration *sql.DB // no time-outs
}

func openPostgres(ctx context.Context, o Options) (engine, error) {
	cfg, err := pgx.ParseConfig(o.URL)
	if err != nil {
		// The parser's error may hold the URL, and that a password.
		return nil, errors.New("sqldb: the PostgreSQL URL cannot be read")
	}
	slow := cfg.Copy()
	slow.RuntimeParams["application_name"] = "parley-migrate"
	for k, v := range postgresSettings {
		if _, given := cfg.RuntimeParams[k]; !given || k == "synchronous_commit" {
			cfg.RuntimeParams[k] = v
		}
	}
	cfg.StatementCacheCapacity = statementsMax
	e := &postgresEngine{db: stdlib.OpenDB(*cfg), migration: stdlib.OpenDB(*slow)}
	n := o.Conns
	if n == 0 {
		n = 16
	}
	e.db.SetMaxOpenConns(n)
	e.db.SetMaxIdleConns(n)
	e.migration.SetMaxIdleConns(0)
	if err := e.check(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// check refuses a server that would lose what it acknowledged.
func (e *postgresEngine) check(ctx context.Context) error {
	for setting, want := range map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "server_encoding": "UTF8"} {
		var got string
		if err := e.db.QueryRowContext(ctx, "SELECT current_setting($1)", setting).Scan(&got); err != nil {
			return fmt.Errorf("sqldb: connect to PostgreSQL: %w", err)
		}
		if got != want {
			return fmt.Errorf("sqldb: PostgreSQL runs with %s=%s; Parley promises durability and needs %s", setting, got, want)
		}
	}
	return nil
}

func (e *postgresEngine) trim(context.Context) {} // PostgreSQL's caches are its own.

func (e *postgresEngine) pool() *sql.DB { return e.migration }

func (e *postgresEngine) close() error { return errors.Join(e.db.Close(), e.migration.Close()) }

func (e *postgresEngine) write(ctx context.Context, _ bool, f func(conn) error) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqldb: begin: %w", postgresFault(err))
	}
	done := false
	defer func() {
		if !done { // f panicked
			_ = tx.Rollback() // the panic is what the caller sees
		}
	}()
	err = f(postgresConn{tx})
	done = true
	if err != nil {
		undo := tx.Rollback()
		if errors.Is(undo, sql.ErrTxDone) {
			undo = nil // the caller's context ended it
		}
		return rolledBack(postgresFault(err), undo)
	}
	if err := tx.Commit(); err != nil {
		// An error that the server sent means that it rolled back. Without one, the connection or the
		// context ended first, and the server may have committed.
		if _, answered := errors.AsType[*pgconn.PgError](err); answered || errors.Is(err, pgx.ErrTxCommitRollback) {
			return fmt.Errorf("sqldb: commit: %w", postgresFault(err))
		}
		return fmt.Errorf("%w: %w: %w", ErrCommitUnknown, ErrUnavailable, err)
	}
	return nil
}

func (e *postgresEngine) read(ctx context.Context, f func(conn) error) error {
	tx, err := e.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("sqldb: begin: %w", postgresFault(err))
	}
	defer func() {
		_ = tx.Rollback() // nothing was written, and a broken connection is dropped by the pool
	}()
	return postgresFault(f(postgresConn{tx}))
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
	return network || connect || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err)
}

type postgresConn struct{ tx *sql.Tx }

func (c postgresConn) exec(ctx context.Context, query string, args []any) (sql.Result, error) {
	return c.tx.ExecContext(ctx, query, args...)
}

func (c postgresConn) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	return c.tx.QueryContext(ctx, query, args...)
}
