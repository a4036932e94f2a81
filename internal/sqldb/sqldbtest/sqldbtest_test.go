package sqldbtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"parley/internal/schema"
	"parley/internal/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachDatabaseIsFreshAndMigrated(t *testing.T) {
	for range 2 { // the second must not see what the first wrote
		Run(t, func(t *testing.T, db *sqldb.DB) {
			if pending, err := schema.Pending(t.Context(), db); err != nil || pending {
				t.Errorf("Pending = %t, %v, want false", pending, err)
			}
			err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(t.Context(), `INSERT INTO meta (key, value) VALUES ('sqldbtest', 'seen')`)
				return err
			})
			if err != nil {
				t.Errorf("a first write: %v", err)
			}
		})
	}
}

func TestChecksSeeWhatTheTestLeft(t *testing.T) {
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		ran := 0
		t.Run(dialect.String(), func(t *testing.T) {
			db := Open(t, dialect, func(ctx context.Context, db *sqldb.DB) error {
				ran++
				return db.Read(ctx, func(tx *sqldb.Tx) error {
					var value string
					found, err := tx.One(ctx, []any{&value}, `SELECT value FROM meta WHERE key = 'sqldbtest'`)
					if err == nil && !found {
						err = errors.New("the row that the test wrote is not there")
					}
					return err
				})
			})
			err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(t.Context(), `INSERT INTO meta (key, value) VALUES ('sqldbtest', 'left')`)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		if ran != 1 {
			t.Errorf("on %s the check ran %d times, want once", dialect, ran)
		}
	}
}

func TestDatabasesAreGoneAfterTheirTest(t *testing.T) {
	var sqlite, postgres string
	t.Run("inner", func(t *testing.T) {
		sqlite, postgres = URL(t, sqldb.SQLite), URL(t, sqldb.Postgres)
	})
	if _, err := os.Stat(strings.TrimPrefix(sqlite, "sqlite:")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the SQLite file: %v, want that it does not exist", err)
	}
	if db, err := sqldb.Open(t.Context(), sqldb.Options{URL: postgres}); err == nil {
		db.Close()
		t.Error("the PostgreSQL database can still be opened")
	}
}

func TestOpenPostgresURLIsEmpty(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: OpenPostgresURL(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	applied, err := schema.Migrate(t.Context(), db)
	if err != nil || applied == 0 {
		t.Errorf("Migrate = %d, %v, want that it had something to apply", applied, err)
	}
}

func TestFailedCheckFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	Open(r, sqldb.SQLite, func(context.Context, *sqldb.DB) error { return errors.New("seq 3 is missing") })
	r.end()
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], "seq 3 is missing") {
		t.Errorf("the test failed with %q, want once, with what the check said", r.failures)
	}
}

// recorder is a test that keeps its failures and ends when told to.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}
