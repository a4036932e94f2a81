package world

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/test/bench"
	"parley/test/postgres"
)

// standbyName is what the primary calls its standby.
const standbyName = "parley_standby"

// databaseAwayMax is for how long a database that was ended stays away at most.
const databaseAwayMax = 3 * time.Second

// A database is the PostgreSQL that the nodes share, with a standby if the world has one. Its two ports stay the same.
type database struct {
	w      *World
	first  int // ports
	second int // 0: there is no standby

	mu      sync.Mutex
	primary *postgres.Cluster
	standby *postgres.Cluster // nil: there is none, or it is being made anew
}

// startDatabase starts PostgreSQL, and its standby if there is to be one.
func (w *World) startDatabase(ctx context.Context) error {
	d := &database{w: w}
	var err error
	if d.first, err = freePort(); err != nil {
		return err
	}
	if d.primary, err = postgres.Start(ctx, d.options(d.first)); err != nil {
		return err
	}
	w.postgres = d
	if w.options.Kind != PostgresReplica {
		return nil
	}
	if d.second, err = freePort(); err != nil {
		return err
	}
	return d.makeStandby(ctx, d.second)
}

// options are those of a server at port. Syncing by fdatasync is the default on Linux; faults rely on it. A standby that lost its primary
// tries again soon, since commits wait for it.
func (d *database) options(port int) postgres.Options {
	return postgres.Options{Port: port, Settings: []string{"wal_sync_method=fdatasync", "wal_keep_size=1GB", "wal_retrieve_retry_interval=200ms"}}
}

// makeStandby gives the primary a standby, without which it commits nothing from then on.
func (d *database) makeStandby(ctx context.Context, port int) error {
	standby, err := d.primary.Replica(ctx, standbyName, d.options(port))
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.standby = standby
	d.mu.Unlock()
	// The setting is not among those of the command line, which nothing could change, and not in what a standby is copied from.
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + standbyName + "'", "SELECT pg_reload_conf()"} {
		if err := d.exec(ctx, statement); err != nil {
			return err
		}
	}
	return d.awaitStandby(ctx)
}

// awaitStandby waits until the standby follows, so that commits need not wait for it to come.
func (d *database) awaitStandby(ctx context.Context) error {
	const question = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND sync_state = 'sync')"
	return until(ctx, "the standby to be synchronous", func() (synchronous bool, _ error) {
		return d.query(ctx, question, &synchronous, standbyName) == nil && synchronous, nil
	})
}

// url leads the nodes to whichever server takes writes.
func (d *database) url() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, err := url.Parse(d.primary.URL)
	if err != nil {
		panic(err) // It is our own.
	}
	if d.second != 0 {
		u.Host = loopback(d.first) + "," + loopback(d.second)
		u.RawQuery += "&target_session_attrs=read-write"
	}
	return u.String()
}

func (d *database) ports() []int {
	if d.second == 0 {
		return []int{d.first}
	}
	return []int{d.first, d.second}
}

func (d *database) exec(ctx context.Context, statement string, args ...any) error {
	return d.with(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, statement, args...)
		return err
	})
}

// query reads one value.
func (d *database) query(ctx context.Context, statement string, value any, args ...any) error {
	return d.with(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, statement, args...).Scan(value) })
}

// with runs f on a connection to the primary.
func (d *database) with(ctx context.Context, f func(*pgx.Conn) error) error {
	d.mu.Lock()
	target := d.primary.URL
	d.mu.Unlock()
	c, err := pgx.Connect(ctx, target)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return f(c)
}

// stop ends both servers and removes their data.
func (d *database) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.standby != nil {
		d.standby.Stop()
	}
	d.primary.Stop()
}

// faults harm the database server as a whole.
func (d *database) faults() []Fault {
	targets := []string{"postgres"}
	faults := []Fault{
		{Name: "postgres-kill", About: "All processes of PostgreSQL are ended by kill -9, and started again within 3 s.", targets: targets,
			inject: d.shutdown(postgres.Killed)},
		{Name: "postgres-crash", About: "PostgreSQL ends without writing anything (immediate shutdown), and is started again.", targets: targets,
			inject: d.shutdown(postgres.Immediate)},
		{Name: "postgres-restart", About: "PostgreSQL is restarted in order.", targets: targets, inject: d.shutdown(postgres.Fast)},
		{Name: "postgres-sessions", About: "All sessions of the nodes are terminated.", targets: targets, inject: d.terminate},
	}
	if d.second != 0 {
		faults = append(faults, Fault{Name: "fail-over", About: "The primary is ended by kill -9, and its standby promoted; it gets a new standby to heal.",
			targets: targets, inject: d.failOver},
			Fault{Name: "standby-freeze", About: "The standby is frozen by SIGSTOP, so that nothing can be committed, and goes on by SIGCONT.",
				Last: freezes, targets: targets, inject: d.freezeStandby})
	}
	return faults
}

func (d *database) shutdown(way postgres.Way) injection {
	return func(ctx context.Context, r *rand.Rand, _ string) (func(context.Context) error, error) {
		away := between(r, 0, databaseAwayMax)
		if err := d.primary.Shutdown(ctx, way); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			if err := bench.Sleep(ctx, away); err != nil {
				return err
			}
			return d.heal(ctx)
		}, nil
	}
}

// heal starts the server if it does not run, as often as that takes, and returns when it answers and its standby follows.
func (d *database) heal(ctx context.Context) error {
	err := until(ctx, "PostgreSQL", func() (bool, error) {
		if !d.primary.Running() {
			if err := d.primary.Start(ctx); err != nil {
				return false, err
			}
		}
		var one int
		return d.query(ctx, "SELECT 1", &one) == nil, nil
	})
	if err != nil || d.standby == nil {
		return err
	}
	return d.awaitStandby(ctx)
}

func (d *database) terminate(ctx context.Context, _ *rand.Rand, _ string) (func(context.Context) error, error) {
	return nothing, d.exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'parley'")
}

// failOver ends the primary for ever and promotes its standby; to heal, the new primary gets a standby of its own.
func (d *database) failOver(ctx context.Context, _ *rand.Rand, _ string) (func(context.Context) error, error) {
	lost := d.primary
	if err := lost.Shutdown(ctx, postgres.Killed); err != nil {
		return nil, err
	}
	lost.Stop()
	if err := d.standby.Promote(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.primary, d.standby = d.standby, nil
	port := d.first + d.second - d.primary.Port()
	d.mu.Unlock()
	return func(ctx context.Context) error {
		if err := d.heal(ctx); err != nil {
			return err
		}
		return d.makeStandby(ctx, port)
	}, nil
}

func (d *database) freezeStandby(context.Context, *rand.Rand, string) (func(context.Context) error, error) {
	// The postmaster comes first, and starts no other process then.
	pids, err := d.standby.Processes()
	if err != nil {
		return nil, err
	}
	signal := func(s syscall.Signal) (err error) {
		for _, pid := range pids {
			if e := syscall.Kill(pid, s); e != nil && !errors.Is(e, syscall.ESRCH) {
				err = errors.Join(err, e)
			}
		}
		return err
	}
	return func(context.Context) error { return signal(syscall.SIGCONT) }, signal(syscall.SIGSTOP)
}

// traceFaults harm the server's system calls. Its log is written by pwrite64.
func (d *database) traceFaults() []Fault {
	targets := []string{"postgres"}
	return []Fault{
		{Name: "sync-slow", About: "Each sync of PostgreSQL takes 300 ms more.", AckMin: slowSync, Last: slowSyncs, targets: targets,
			inject: d.traced(harming(delayed, syncs...))},
		{Name: "sync-error", About: "Each sync of PostgreSQL fails with an I/O error, which ends it; it is started again to heal.", Last: failures,
			targets: targets, inject: d.traced(harming(ioFails, syncs...))},
		{Name: "write-full", About: "PostgreSQL finds no room for its log, which ends it; it is started again to heal.", Last: fullnesses, targets: targets,
			inject: d.traced(harming(roomless, "pwrite64", "pwritev"))},
		{Name: "tables-full", About: "PostgreSQL has room for its log, and none for its tables.", Last: fullnesses, targets: targets, inject: d.fillTables},
	}
}

// traced harms system calls of all processes of the primary until it is healed. It may end because of it, and is started then.
func (d *database) traced(args []string) injection {
	return func(ctx context.Context, _ *rand.Rand, _ string) (func(context.Context) error, error) {
		t, err := d.w.attach(ctx, d.primary.Processes, args...)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			t.detach()
			return d.heal(ctx)
		}, nil
	}
}

// fillTables has writes to the files of tables and indexes find no room. What is harmed is known by its name only once it exists.
func (d *database) fillTables(ctx context.Context, r *rand.Rand, target string) (func(context.Context) error, error) {
	var files []string
	err := d.query(ctx, `SELECT array_agg(current_setting('data_directory') || '/' || pg_relation_filepath(oid)) FROM pg_class
		WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace`, &files)
	if err != nil {
		return nil, err
	}
	return d.traced(append(harming(roomless, writes...), on(files...)...))(ctx, r, target)
}
