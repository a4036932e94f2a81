package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// table makes a small one of the test's own.
func table(t *testing.T, db *sqldb.DB) {
	t.Helper()
	err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sqldb.DB) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.One(t.Context(), []any{&n}, `SELECT COUNT(*) FROM things`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(tx *sqldb.Tx, id int) error {
	_, err := tx.Exec(context.Background(), `INSERT INTO things (id, name) VALUES ($1, $2)`, id, "x")
	return err
}

func TestInTx(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		table(t, db)
		var after []string
		err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			tx.AfterCommit(func() { after = append(after, fmt.Sprint("a", count(t, db))) })
			tx.AfterCommit(func() { after = append(after, "b") })
			return insert(tx, 1)
		})
		if err != nil || strings.Join(after, " ") != "a1 b" {
			t.Errorf("InTx: %v, then ran %v", err, after)
		}
		after = nil
		bad := errors.New("bad")
		err = db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			tx.AfterCommit(func() { after = append(after, "c") })
			if err := insert(tx, 2); err != nil {
				return err
			}
			return bad
		})
		if !errors.Is(err, bad) || len(after) != 0 || count(t, db) != 1 {
			t.Errorf("a transaction that failed: %v, ran %v, left %d rows", err, after, count(t, db))
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.InTx(t.Context(), func(tx *sqldb.Tx) error { // panics
				if err := insert(tx, 3); err != nil {
					t.Error(err)
				}
				panic("bad")
			})
		}()
		if n := count(t, db); n != 1 {
			t.Errorf("a transaction that panicked left %d rows", n)
		}
		err = db.InTx(t.Context(), func(tx *sqldb.Tx) error { return insert(tx, 1) })
		if !sqldb.IsDataFault(err) {
			t.Errorf("a key twice: %v is no fault of the data", err)
		}
		err = db.Read(t.Context(), func(tx *sqldb.Tx) error { return insert(tx, 9) })
		if err == nil || count(t, db) != 1 {
			t.Errorf("a read wrote: %v", err)
		}
		if s := db.Stats(); s.Commits < 2 || s.Rollbacks < 2 || s.Reads < 3 {
			t.Errorf("Stats = %+v", s)
		}
	})
}

// TestReadsDoNotWait reads while a transaction is open that has written, and sees nothing of it.
func TestReadsDoNotWait(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		table(t, db)
		err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			if err := insert(tx, 1); err != nil {
				return err
			}
			if n := count(t, db); n != 0 {
				t.Errorf("a read saw %d rows that are not committed", n)
			}
			return nil
		})
		if err != nil || count(t, db) != 1 {
			t.Errorf("%v, %d rows after", err, count(t, db))
		}
		// One snapshot: what is committed meanwhile is not seen.
		err = db.Read(t.Context(), func(tx *sqldb.Tx) error {
			var before, after int
			if _, err := tx.One(t.Context(), []any{&before}, `SELECT COUNT(*) FROM things`); err != nil {
				return err
			}
			if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error { return insert(tx, 2) }); err != nil {
				return err
			}
			if _, err := tx.One(t.Context(), []any{&after}, `SELECT COUNT(*) FROM things`); err != nil {
				return err
			}
			if before != 1 || after != 1 {
				t.Errorf("one read saw %d rows, then %d", before, after)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestMulti(t *testing.T) {
	m := sqldb.NewMulti(`INSERT INTO things (id, name) SELECT column1, column2 FROM {rows} AS v WHERE column1 IS NOT NULL`, "BIGINT", "TEXT")
	join := sqldb.NewMulti(`SELECT v.column2, things.name FROM {rows} AS v JOIN things ON things.id = v.column1`, "BIGINT", "TEXT")
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		table(t, db)
		total := 0
		for _, n := range []int{0, 1, 2, 3, 5, 8, 255, 256, 257, 700} {
			rows := make([][]any, n)
			for i := range rows {
				var name any = fmt.Sprint("n", total+i)
				if i == 1 {
					name = nil
				}
				rows[i] = []any{int64(total + i), name}
			}
			total += n
			err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
				changed, err := tx.ExecMulti(t.Context(), m, rows)
				if changed != int64(n) {
					t.Errorf("%d rows inserted, want %d", changed, n)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			err = db.Read(t.Context(), func(tx *sqldb.Tx) error {
				return tx.EachMulti(t.Context(), func(r sqldb.Row) error {
					var want, got sql.NullString
					found++
					err := r.Scan(&want, &got)
					if want != got {
						t.Errorf("joined %v with %v", want, got)
					}
					return err
				}, join, rows)
			})
			if err != nil || found != n {
				t.Errorf("%d rows joined, want %d; %v", found, n, err)
			}
		}
	})
}

// TestUrgentGoesFirst has a writer hold the database while others queue up.
func TestUrgentGoesFirst(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite)
	table(t, db)
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	hold, release := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		_ = db.InTx(t.Context(), func(*sqldb.Tx) error { close(hold); <-release; return nil })
	})
	<-hold
	note := func(s string) func(*sqldb.Tx) error {
		return func(*sqldb.Tx) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
			return nil
		}
	}
	for range 3 {
		wg.Go(func() { _ = db.InTx(t.Context(), note("other")) })
	}
	waitFor(t, func() bool { return sqldb.Queued(db) == 3 })
	for range 2 {
		wg.Go(func() { _ = db.InTxUrgent(t.Context(), note("urgent")) })
	}
	// One gives up while it waits, and nobody misses it.
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	wg.Go(func() { gaveUp <- db.InTxUrgent(ctx, note("gave up")) })
	waitFor(t, func() bool { return sqldb.Queued(db) == 6 })
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that gave up: %v", err)
	}
	close(release)
	wg.Wait()
	if got := strings.Join(order, " "); got != "urgent urgent other other other" {
		t.Errorf("order: %s", got)
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		<-time.After(time.Millisecond)
	}
}

func TestBatcher(t *testing.T) {
	defer goleak.VerifyNone(t)
	var mu sync.Mutex
	got := map[int][]int{}
	var batches, largest atomic.Int64
	block := make(chan struct{})
	b := sqldb.NewBatcher(sqldb.BatcherOptions[[2]int]{Writers: 2, BatchMax: 8, QueueMax: 100, Commit: func(_ context.Context, items [][2]int) {
		<-block
		batches.Add(1)
		largest.Store(max(largest.Load(), int64(len(items))))
		mu.Lock()
		defer mu.Unlock()
		for _, it := range items {
			got[it[0]] = append(got[it[0]], it[1])
		}
	}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	put := 0
	for i := range 200 {
		err := b.Put(i%4, [2]int{i % 4, i})
		if err == nil {
			put++
		} else if !errors.Is(err, sqldb.ErrQueueFull) {
			t.Fatal(err)
		}
	}
	// Each of the two writers may have taken some before it stopped at block.
	if put < 100 || put > 116 {
		t.Errorf("%d items were taken, want its bound of 100 and what is in hand", put)
	}
	if b.Waiting() < put-16 {
		t.Errorf("%d wait of %d", b.Waiting(), put)
	}
	close(block)
	stop()
	<-ended
	n := 0
	for lane, items := range got {
		n += len(items)
		for i := 1; i < len(items); i++ {
			if items[i] < items[i-1] {
				t.Errorf("lane %d: %v", lane, items)
			}
		}
	}
	if n != put {
		t.Errorf("%d committed of %d put before the stop", n, put)
	}
	if largest.Load() > 8 || batches.Load() < int64(put/8) {
		t.Errorf("%d batches, the largest of %d", batches.Load(), largest.Load())
	}
	if err := b.Put(0, [2]int{}); !errors.Is(err, sqldb.ErrStopped) {
		t.Errorf("Put after the stop: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{"", "mysql://x", "parley.db", "postgres://%zz", "sqlite:" + t.TempDir() + "/no/such/folder/x.db"} {
		if db, err := sqldb.Open(t.Context(), sqldb.Options{URL: url}); err == nil {
			t.Errorf("Open(%q) opened", url)
			_ = db.Close() // the test has failed already
		}
	}
	_, err := sqldb.Open(t.Context(), sqldb.Options{URL: "postgres://u:secretword@127.0.0.1:1/x?sslmode=disable&connect_timeout=2"})
	if err == nil || strings.Contains(err.Error(), "secretword") {
		t.Errorf("no server there: %v", err)
	}
}

// TestOnConnect has something done first on every new connection, and a connection given up on which that fails.
func TestOnConnect(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		table(t, db)
		var calls atomic.Int64
		var failing atomic.Bool
		db.OnConnect(func(ctx context.Context, tx *sqldb.Tx) error {
			if failing.Load() {
				return errors.New("for a test")
			}
			return insert(tx, int(calls.Add(1)))
		})
		// Each transaction in the other needs a connection of its own; the first is there.
		var nested func(depth int) error
		nested = func(depth int) error {
			return db.Read(t.Context(), func(tx *sqldb.Tx) error {
				if _, err := tx.Exec(t.Context(), `SELECT 1`); err != nil || depth == 1 {
					return err
				}
				return nested(depth - 1)
			})
		}
		if err := nested(3); err != nil {
			t.Fatal(err)
		}
		want := 0
		if db.Dialect() == sqldb.Postgres {
			want = int(calls.Load())
			if want < 2 {
				t.Errorf("it ran %d times for two new connections", want)
			}
		}
		if n := count(t, db); n != want || int(calls.Load()) != want {
			t.Errorf("it ran %d times and %d of that was committed, want %d", calls.Load(), n, want)
		}
		failing.Store(true)
		if err := nested(4); (err == nil) != (db.Dialect() == sqldb.SQLite) {
			t.Errorf("where it fails: %v", err)
		}
	})
}
