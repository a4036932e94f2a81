package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"parley/internal/problem"
)

// Trim gives back the memory of what is cached here. It is for a moment when little is done.
func (db *DB) Trim(ctx context.Context) { db.engine.trim(ctx) }

// Dialect is the SQL engine behind a DB.
type Dialect int

// The engines.
const (
	SQLite Dialect = iota
	Postgres
)

func (d Dialect) String() string {
	if d == Postgres {
		return "postgres"
	}
	return "sqlite"
}

// ErrCommitUnknown says that the connection broke while COMMIT was under way: the transaction is
// either wholly there or not at all, and the caller must look.
var ErrCommitUnknown = errors.New("sqldb: the outcome of the commit is unknown")

// What a client may be told of a transaction that failed for no fault of its own.
var (
	// ErrFull says that the database has no room to write. Reads go on.
	ErrFull = problem.New(problem.StorageFull, "There is no room to store anything.")
	// ErrUnavailable says that the database did not answer.
	ErrUnavailable = &problem.Error{Code: problem.Unavailable, Message: "The database cannot be reached now.", RetryAfter: time.Second}
)

// IsDataFault tells whether the statement failed for what stood in its values (a constraint, a length, a
// range), so that another with other values may succeed.
func IsDataFault(err error) bool {
	if se, ok := errors.AsType[*sqlite.Error](err); ok {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE:
			return true
		}
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		// PostgreSQL, "Error Codes": data exception, integrity constraint violation, program limit exceeded.
		switch pe.Code[:2] {
		case "22", "23", "54":
			return true
		}
	}
	return false
}

// Options say which database to open.
type Options struct {
	// URL is "postgres://…", or "sqlite:" and the path of a file, which is made when absent.
	URL    string
	Logger *slog.Logger
	// Conns bounds the connections to PostgreSQL, or the reading ones of SQLite; 0: 16, or 4.
	Conns int
	// ReadMax is how long a read of SQLite may stay open if its caller set no deadline, since an open read keeps the WAL from
	// starting over; 0: 1 s.
	ReadMax time.Duration
}

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	dialect Dialect
	log     *slog.Logger
	engine  engine
	stats   counters
}

// engine is what the two databases do differently.
type engine interface {
	// write runs f in a transaction, then the statements that f has left, and commits.
	write(ctx context.Context, urgent bool, f func(conn) ([]statement, error)) error
	read(ctx context.Context, f func(conn) error) error
	// onConnect is DB.OnConnect.
	onConnect(f func(context.Context, conn) ([]statement, error))
	trim(ctx context.Context)
	pool() *sql.DB // for migrations
	oldestSnapshot() time.Duration
	close() error
}

// conn runs statements inside a transaction.
type conn interface {
	// run does them in their order, up to the first that fails. PostgreSQL gets all in one round trip.
	run(ctx context.Context, all []statement) error
}

// statement is a text and its arguments, and what becomes of the answer.
type statement struct {
	text    string
	args    []any
	scan    func(Row) error // called for each row; nil: the answer has none
	changed *int64          // gets the number of rows changed, unless nil
}

// Row is one row of an answer.
type Row interface {
	// Scan copies the columns into what dest points to. A column that may be NULL goes into a pointer to a pointer, or a
	// sql.Null.
	Scan(dest ...any) error
}

type counters struct{ commits, rollbacks, reads, statements atomic.Int64 }

// Stats counts what was done since the start.
type Stats struct{ Commits, Rollbacks, Reads, Statements int64 }

// Stats is a snapshot of the counters.
func (db *DB) Stats() Stats {
	return Stats{Commits: db.stats.commits.Load(), Rollbacks: db.stats.rollbacks.Load(), Reads: db.stats.reads.Load(), Statements: db.stats.statements.Load()}
}

// OldestSnapshot is the age of the oldest transaction on PostgreSQL that may still see what has since been changed, a few
// seconds late: a dump, or one that somebody forgot. It slows every send. On SQLite there is none.
func (db *DB) OldestSnapshot() time.Duration { return db.engine.oldestSnapshot() }

// Open connects to the database, or makes it (SQLite). Close ends it.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{log: o.Logger}
	var err error
	switch {
	case strings.HasPrefix(o.URL, "postgres://"), strings.HasPrefix(o.URL, "postgresql://"):
		db.dialect = Postgres
		db.engine, err = openPostgres(ctx, o)
	case strings.HasPrefix(o.URL, "sqlite:"):
		db.dialect = SQLite
		db.engine, err = openSQLite(ctx, strings.TrimPrefix(o.URL, "sqlite:"), o)
	default:
		return nil, errors.New("sqldb: the database URL begins with neither postgres:// nor sqlite: as it must")
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

// Close ends all connections. No method may be running or be called after.
func (db *DB) Close() error { return db.engine.close() }

// Dialect tells the engine.
func (db *DB) Dialect() Dialect { return db.dialect }

// Pool is the database/sql view that migrations run on; nothing else uses it.
func (db *DB) Pool() *sql.DB { return db.engine.pool() }

// OnConnect has f run in a transaction of its own on every connection to PostgreSQL that is made from now on, before
// anything else is: the server that it leads to may be another one than before, with less in it. A connection on which f
// fails is given up. f may be called by several goroutines at once. On SQLite, whose file is the same until Close, f
// never runs.
func (db *DB) OnConnect(f func(context.Context, *Tx) error) {
	db.engine.onConnect(func(ctx context.Context, c conn) ([]statement, error) {
		tx := &Tx{Dialect: db.dialect, conn: c, statements: &db.stats.statements}
		err := f(ctx, tx)
		return tx.queue, err
	})
}

// InTx runs f in a writing transaction and commits it, or rolls back if f fails or panics.
// On nil, all that f wrote is durable and its AfterCommit functions have run.
// On PostgreSQL the isolation is READ COMMITTED.
func (db *DB) InTx(ctx context.Context, f func(*Tx) error) error { return db.inTx(ctx, false, f) }

// InTxUrgent is InTx for what people wait for: on SQLite it goes before every InTx that waits.
func (db *DB) InTxUrgent(ctx context.Context, f func(*Tx) error) error { return db.inTx(ctx, true, f) }

func (db *DB) inTx(ctx context.Context, urgent bool, f func(*Tx) error) error {
	tx := &Tx{Dialect: db.dialect, statements: &db.stats.statements}
	err := db.engine.write(ctx, urgent, func(c conn) ([]statement, error) {
		tx.conn = c
		err := f(tx)
		tx.statements.Add(int64(len(tx.queue)))
		return tx.queue, err
	})
	if err != nil {
		db.stats.rollbacks.Add(1)
		return err
	}
	db.stats.commits.Add(1)
	for _, after := range tx.after {
		after()
	}
	return nil
}

// Read runs f on one snapshot that no writer holds up. f cannot write.
func (db *DB) Read(ctx context.Context, f func(*Tx) error) error {
	db.stats.reads.Add(1)
	return db.engine.read(ctx, func(c conn) error {
		tx := &Tx{Dialect: db.dialect, conn: c, statements: &db.stats.statements}
		if err := f(tx); err != nil {
			return err
		}
		return tx.Flush(ctx)
	})
}

// Tx is a transaction under way; it belongs to one goroutine.
//
// Statements can be queued, so that those that do not depend on each other's answers cost one round trip to PostgreSQL
// instead of one each. A statement that fails fails the transaction: f must return its error. What is queued is done, in its order, before the next statement that is not, by Flush, or with
// the commit.
type Tx struct {
	Dialect Dialect

	conn  conn
	queue []statement
	after []func()

	statements *atomic.Int64 // counts those that were run
}

// AfterCommit has f run once the transaction is durable; it never runs if that fails. f must not
// fail and must not wait, and no lock of the database is held while it runs.
func (tx *Tx) AfterCommit(f func()) { tx.after = append(tx.after, f) }

// Queue has m run for all rows later, as told at Tx. scan is called for each row of the answer; nil: there is none.
func (tx *Tx) Queue(m *Multi, rows [][]any, scan func(Row) error) {
	tx.queue = m.statements(tx.queue, tx.Dialect, rows, scan, nil)
}

// QueueExec has a statement run later, as told at Tx.
func (tx *Tx) QueueExec(query string, args ...any) {
	tx.queue = append(tx.queue, statement{text: query, args: args})
}

// QueueEach has a statement run later, as told at Tx, and scan called for each row of its answer.
func (tx *Tx) QueueEach(scan func(Row) error, query string, args ...any) {
	tx.queue = append(tx.queue, statement{text: query, args: args, scan: scan})
}

// Flush runs what is queued.
func (tx *Tx) Flush(ctx context.Context) error {
	if len(tx.queue) == 0 {
		return nil
	}
	queue := tx.queue
	tx.queue = nil
	tx.statements.Add(int64(len(queue)))
	return tx.conn.run(ctx, queue)
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	tx.queue = append(tx.queue, statement{text: query, args: args, changed: &changed})
	err = tx.Flush(ctx)
	return changed, err
}

// Each runs a statement and calls scan for each row.
func (tx *Tx) Each(ctx context.Context, scan func(Row) error, query string, args ...any) error {
	tx.queue = append(tx.queue, statement{text: query, args: args, scan: scan})
	return tx.Flush(ctx)
}

// One runs a statement and scans its first row into dest; found is false when there is none.
func (tx *Tx) One(ctx context.Context, dest []any, query string, args ...any) (found bool, err error) {
	err = tx.Each(ctx, func(row Row) error {
		if found {
			return nil
		}
		found = true
		return row.Scan(dest...)
	}, query, args...)
	return found, err
}

// ExecMulti runs m for all rows and returns how many rows were changed.
func (tx *Tx) ExecMulti(ctx context.Context, m *Multi, rows [][]any) (changed int64, err error) {
	tx.queue = m.statements(tx.queue, tx.Dialect, rows, nil, &changed)
	err = tx.Flush(ctx)
	return changed, err
}

// EachMulti runs m for all rows and calls scan for each row of the answer.
func (tx *Tx) EachMulti(ctx context.Context, scan func(Row) error, m *Multi, rows [][]any) error {
	tx.Queue(m, rows, scan)
	return tx.Flush(ctx)
}

// rolledBack joins what went wrong with what went wrong while undoing it.
func rolledBack(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w (and the rollback: %w)", err, undo)
}
