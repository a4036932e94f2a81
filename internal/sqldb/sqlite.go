package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// A checkpoint is looked at this often while there is something to copy.
	checkpointEvery = 250 * time.Millisecond
	// Beyond this many pages in the WAL (of 4 KiB: 64 MiB) the writer waits for a whole checkpoint.
	walPagesMax   = 16384
	sqliteReadMax = time.Second // see Options.ReadMax
	// Statements kept prepared on each connection.
	statementsMax = 256
)

type sqliteEngine struct {
	log     *slog.Logger
	readMax time.Duration
	db      *sql.DB
	turn    turnstile
	writer  *sqliteConn // used by who is in turn
	broken  error       // likewise; a sync failed: nothing is written any more
	readers chan *sqliteConn
	dirty   chan struct{} // something was committed since the last look at the WAL
	stop    context.CancelFunc
	ended   chan struct{}
}

func openSQLite(ctx context.Context, path string, o Options) (engine, error) {
	// SQLite, "Write-Ahead Logging" and "PRAGMA synchronous": FULL syncs the WAL at every commit.
	// The writer's own automatic checkpoints are off; see checkpoint. Automatic indexes are off, since with them
	// the planner would read a whole table to join it with a few rows, instead of looking those up.
	pragmas := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "wal_autocheckpoint(0)",
		"cache_size(-16384)", "automatic_index(0)", "temp_store(MEMORY)", "journal_size_limit(67108864)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, fmt.Errorf("sqldb: open %s: %w", path, err)
	}
	e := &sqliteEngine{log: o.Logger, db: db, readMax: o.ReadMax, dirty: make(chan struct{}, 1), ended: make(chan struct{})}
	if e.readMax == 0 {
		e.readMax = sqliteReadMax
	}
	n := o.Conns
	if n == 0 {
		n = 4
	}
	db.SetMaxIdleConns(n + 4)
	e.readers = make(chan *sqliteConn, n)
	fail := func(err error) (engine, error) {
		return nil, errors.Join(fmt.Errorf("sqldb: open %s: %w", path, err), db.Close())
	}
	if e.writer, err = newSQLiteConn(ctx, db); err != nil {
		return fail(err)
	}
	var mode string
	var synchronous int
	if err := e.writer.c.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fail(err)
	}
	if err := e.writer.c.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return fail(err)
	}
	if mode != "wal" || synchronous != 2 {
		return fail(fmt.Errorf("journal mode %q and synchronous %d, want wal and 2 (is the file on a network disk?)", mode, synchronous))
	}
	for range n {
		c, err := newSQLiteConn(ctx, db)
		if err != nil {
			return fail(err)
		}
		// A reader caches a quarter of what the writer does: the system's own cache of the file stands behind both.
		for _, pragma := range []string{"PRAGMA query_only = ON", "PRAGMA cache_size = -4096"} {
			if _, err := c.c.ExecContext(ctx, pragma); err != nil {
				return fail(err)
			}
		}
		e.readers <- c
	}
	checkpointer, err := db.Conn(ctx)
	if err != nil {
		return fail(err)
	}
	run, stop := context.WithCancel(context.Background())
	e.stop = stop
	go func() {
		defer close(e.ended)
		defer checkpointer.Close() // the pool closes it for good
		e.checkpoint(run, checkpointer)
	}()
	return e, nil
}

func (e *sqliteEngine) onConnect(func(context.Context, conn) ([]statement, error)) {}

func (e *sqliteEngine) pool() *sql.DB { return e.db }

func (e *sqliteEngine) oldestSnapshot() time.Duration { return 0 } // No read is open for longer than readMax.

func (e *sqliteEngine) close() error {
	e.stop()
	<-e.ended
	err := e.writer.close()
	for range cap(e.readers) {
		err = errors.Join(err, (<-e.readers).close())
	}
	return errors.Join(err, e.db.Close())
}

// trim empties the page caches of the connections that are free.
func (e *sqliteEngine) trim(ctx context.Context) {
	const shrink = "PRAGMA shrink_memory"
	var all []*sqliteConn
	defer func() {
		for _, c := range all {
			e.readers <- c
		}
	}()
	for range cap(e.readers) {
		select {
		case c := <-e.readers:
			all = append(all, c)
			_ = c.do(ctx, shrink) // What is not given back stays in use.
		default:
		}
	}
	if e.turn.enter(ctx, false) != nil {
		return // ctx has ended
	}
	defer e.turn.leave()
	_ = e.writer.do(ctx, shrink) // as above
}

func (e *sqliteEngine) write(ctx context.Context, urgent bool, f func(conn) ([]statement, error)) error {
	if err := e.turn.enter(ctx, urgent); err != nil {
		return err
	}
	defer e.turn.leave()
	if e.broken != nil {
		return e.broken
	}
	// Once begun, a transaction is not interrupted half-way by its caller's going away.
	bg := context.WithoutCancel(ctx)
	if err := e.writer.do(bg, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("sqldb: begin: %w", sqliteFault(err))
	}
	done := false
	defer func() {
		if !done { // f panicked
			_ = e.writer.do(bg, "ROLLBACK") // the panic is what the caller sees
		}
	}()
	last, err := f(e.writer)
	if err == nil {
		err = e.writer.run(bg, last)
	}
	done = true
	if err != nil {
		return rolledBack(sqliteFault(err), e.writer.do(bg, "ROLLBACK"))
	}
	if err := e.writer.do(bg, "COMMIT"); err != nil {
		fault := fmt.Errorf("sqldb: commit: %w", rolledBack(sqliteFault(err), e.writer.do(bg, "ROLLBACK")))
		if se, ok := errors.AsType[*sqlite.Error](err); ok && se.Code()&0xff == sqlite3.SQLITE_IOERR {
			// What the kernel could not sync may be on disk or not, and a later sync that succeeds says
			// nothing about it: only a restart, which reads the file again, can tell.
			e.broken = fmt.Errorf("%w: %w: %w", ErrCommitUnknown, ErrUnavailable, fault)
			return e.broken
		}
		return fault
	}
	select {
	case e.dirty <- struct{}{}:
	default:
	}
	return nil
}

func (e *sqliteEngine) read(ctx context.Context, f func(conn) error) error {
	var c *sqliteConn
	select {
	case c = <-e.readers:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { e.readers <- c }()
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.readMax)
		defer cancel()
	}
	bg := context.WithoutCancel(ctx)
	if err := c.do(bg, "BEGIN"); err != nil {
		return fmt.Errorf("sqldb: begin: %w", err)
	}
	defer func() {
		if err := c.do(bg, "COMMIT"); err != nil {
			e.log.Error("a read could not be ended", "err", err)
		}
	}()
	return f(&readConn{c: c, ctx: ctx})
}

// checkpoint copies the WAL into the database, beside the writer (PASSIVE waits for nobody), and
// makes the writer wait only when the WAL has outgrown its bound.
func (e *sqliteEngine) checkpoint(ctx context.Context, c *sql.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.dirty:
		}
		var busy, pages, copied int
		err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &copied)
		if err == nil && pages > walPagesMax && e.turn.enter(ctx, true) == nil {
			err = c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &copied)
			e.turn.leave()
		}
		if err != nil && ctx.Err() == nil {
			e.log.Error("the WAL could not be copied into the database", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkpointEvery):
		}
	}
}

// sqliteFault gives ErrFull its name and leaves the rest.
func sqliteFault(err error) error {
	if se, ok := errors.AsType[*sqlite.Error](err); ok && se.Code()&0xff == sqlite3.SQLITE_FULL {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// sqliteConn is one connection with its prepared statements; it belongs to one goroutine at a time.
type sqliteConn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
}

func newSQLiteConn(ctx context.Context, db *sql.DB) (*sqliteConn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &sqliteConn{c: c, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *sqliteConn) close() error {
	err := c.forget()
	return errors.Join(err, c.c.Close())
}

func (c *sqliteConn) forget() error {
	var err error
	for _, s := range c.stmts {
		err = errors.Join(err, s.Close())
	}
	clear(c.stmts)
	return err
}

// do runs a statement that only begins or ends a transaction.
func (c *sqliteConn) do(ctx context.Context, word string) error {
	return c.run(ctx, []statement{{text: word}})
}

func (c *sqliteConn) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	if len(c.stmts) >= statementsMax {
		if err := c.forget(); err != nil {
			return nil, err
		}
	}
	s, err := c.c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

// run never interrupts a statement of a writer: it is short, and the driver would spend a goroutine on each.
func (c *sqliteConn) run(ctx context.Context, all []statement) error {
	return c.each(context.WithoutCancel(ctx), all)
}

func (c *sqliteConn) each(ctx context.Context, all []statement) error {
	for i := range all {
		s := &all[i]
		prepared, err := c.prepare(ctx, s.text)
		if err != nil {
			return err
		}
		if s.scan == nil {
			result, err := prepared.ExecContext(ctx, s.args...)
			if err != nil {
				return err
			}
			if s.changed != nil {
				n, err := result.RowsAffected()
				if err != nil {
					return err
				}
				*s.changed += n
			}
			continue
		}
		if err := answer(ctx, prepared, s); err != nil {
			return err
		}
	}
	return nil
}

func answer(ctx context.Context, prepared *sql.Stmt, s *statement) (err error) {
	rows, err := prepared.QueryContext(ctx, s.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // if scan panics too
	for rows.Next() {
		if err := s.scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readConn bounds a reading transaction by its context, whatever its statements were given.
type readConn struct {
	c   *sqliteConn
	ctx context.Context
}

func (r *readConn) run(_ context.Context, all []statement) error {
	return r.c.each(r.ctx, all)
}

// turnstile lets one in at a time, the urgent before the others, each kind in order of arrival as
// far as a condition variable keeps it.
type turnstile struct {
	mu     sync.Mutex
	taken  bool
	urgent []chan struct{}
	others []chan struct{}
}

func (t *turnstile) enter(ctx context.Context, urgent bool) error {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return nil
	}
	ready := make(chan struct{}, 1)
	if urgent {
		t.urgent = append(t.urgent, ready)
	} else {
		t.others = append(t.others, ready)
	}
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	select {
	case <-ready: // it was our turn already: give it on
		t.mu.Unlock()
		t.leave()
	default:
		t.urgent = without(t.urgent, ready)
		t.others = without(t.others, ready)
		t.mu.Unlock()
	}
	return ctx.Err()
}

func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var next chan struct{}
	switch {
	case len(t.urgent) > 0:
		next, t.urgent = t.urgent[0], t.urgent[1:]
	case len(t.others) > 0:
		next, t.others = t.others[0], t.others[1:]
	default:
		t.taken = false
		return
	}
	next <- struct{}{} // it has room for one
}

func without(list []chan struct{}, c chan struct{}) []chan struct{} {
	for i, x := range list {
		if x == c {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
