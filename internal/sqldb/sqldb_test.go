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

// TestQueue has queued statements run in their order, with the next one that is not, and with the commit.
func TestQueue(t *testing.T) {
	add := sqldb.NewMulti(`INSERT INTO things (id, name) SELECT column1, column2 FROM {rows} AS v WHERE column1 IS NOT NULL`, "BIGINT", "TEXT")
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		table(t, db)
		var seen []int
		look := func(tx *sqldb.Tx) {
			tx.QueueEach(func(row sqldb.Row) error {
				var n int
				err := row.Scan(&n)
				seen = append(seen, n)
				return err
			}, `SELECT COUNT(*) FROM things`)
		}
		err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			look(tx)
			tx.Queue(add, [][]any{{int64(1), "a"}, {int64(2), nil}}, nil)
			look(tx)
			tx.QueueExec(`DELETE FROM things WHERE id = $1`, 1)
			if len(seen) > 0 {
				t.Errorf("queued statements were run at once: %v", seen)
			}
			changed, err := tx.Exec(t.Context(), `UPDATE things SET name = 'c'`)
			if changed != 1 || fmt.Sprint(seen) != "[0 2]" {
				t.Errorf("%d rows changed behind the queue, which saw %v", changed, seen)
			}
			tx.Queue(add, [][]any{{int64(3), "d"}}, nil) // goes with the commit
			return err
		})
		if err != nil || count(t, db) != 2 {
			t.Errorf("%v, %d rows", err, count(t, db))
		}
		// What fails with the commit fails the transaction, and is told as its own fault.
		before := db.Stats()
		err = db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			tx.QueueExec(`INSERT INTO things (id) VALUES ($1)`, 4)
			tx.QueueExec(`INSERT INTO things (id) VALUES ($1)`, 3)
			return nil
		})
		after := db.Stats()
		if !sqldb.IsDataFault(err) || errors.Is(err, sqldb.ErrCommitUnknown) || count(t, db) != 2 {
			t.Errorf("a key twice at the end: %v, %d rows", err, count(t, db))
		}
		if after.Statements-before.Statements != 2 || after.Rollbacks-before.Rollbacks != 1 {
			t.Errorf("counted %+v, then %+v", before, after)
		}
	})
}

// TestCommitUnderAWarning has a commit succeed with a warning, as one does whose wait for a standby was cut short.
func TestCommitUnderAWarning(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.Postgres)
	table(t, db)
	err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		tx.QueueExec(`INSERT INTO things (id) VALUES (1)`)
		tx.QueueExec(`DO 'BEGIN RAISE WARNING $x$the wait was cancelled$x$; END'`)
		return nil
	})
	if !errors.Is(err, sqldb.ErrCommitUnknown) || count(t, db) != 1 {
		t.Errorf("%v, %d rows; want an unknown outcome", err, count(t, db))
	}
	if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error { return insert(tx, 2) }); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// TestBatcherExpires has items wait for a writer that does not come.
func TestBatcherExpires(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	began, end := make(chan struct{}), make(chan struct{})
	expired := make(chan int, 10)
	var committed atomic.Int64
	b := sqldb.NewBatcher(sqldb.BatcherOptions[int]{Writers: 1, BatchMax: 1, QueueMax: 10, WaitMax: 20 * time.Millisecond,
		Commit: func(_ context.Context, items []int) {
			if committed.Add(1) == 1 {
				close(began)
				<-end
			}
		},
		Expire: func(i int) { expired <- i },
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	for i := range 4 {
		if err := b.Put(i, i); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-began
		}
	}
	for want := 1; want < 4; want++ {
		select {
		case got := <-expired:
			if got != want {
				t.Errorf("item %d expired, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing expired")
		}
	}
	close(end)
	stop()
	<-ended
	if committed.Load() != 1 || b.Waiting() != 0 {
		t.Errorf("%d committed, %d wait", committed.Load(), b.Waiting())
	}
}

// TestBatcherWriters has a second writer begin only when a whole batch waits, and never in a lane that is busy.
func TestBatcherWriters(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	batches := make(chan []int, 10)
	hold := make(chan struct{})
	b := sqldb.NewBatcher(sqldb.BatcherOptions[int]{Writers: 2, BatchMax: 4, QueueMax: 100, Commit: func(_ context.Context, items []int) {
		batches <- items
		<-hold
	}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	put := func(lane, item int) {
		t.Helper()
		if err := b.Put(lane, item); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1)
	if got := <-batches; fmt.Sprint(got) != "[1]" {
		t.Errorf("the first batch is %v", got)
	}
	for i := range 3 { // less than a batch: the second writer rests
		put(i, 10+i)
	}
	select {
	case got := <-batches:
		t.Errorf("%v went beside the first batch", got)
	case <-time.After(50 * time.Millisecond):
	}
	for i := range 3 {
		put(i, 20+i)
	}
	if got := <-batches; fmt.Sprint(got) != "[11 12 21 22]" { // what is of lane 0 waits for the first
		t.Errorf("the second writer took %v", got)
	}
	close(hold)
	if got := <-batches; fmt.Sprint(got) != "[10 20]" {
		t.Errorf("then came %v", got)
	}
	stop()
	<-ended
}

// TestOldestSnapshot has a transaction stay open that has read.
func TestOldestSnapshot(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.Postgres)
	other, err := db.Pool().BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(`SELECT COUNT(*) FROM meta`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return db.OldestSnapshot() > time.Second })
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return db.OldestSnapshot() < time.Second })
}
