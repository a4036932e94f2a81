package sqldbtest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"parley/internal/schema"
	"parley/internal/sqldb"
)

// setUp bounds what is done to a database before or after a test, a cluster's start included.
const setUp = 2 * time.Minute

// patience is how long a transaction may stand still. A test's process, with the race detector on a busy machine, may be
// held up for longer than a server would let a transaction block others.
const patience = 30 * time.Second

// A Check tells what does not hold in a database, such as chat.Check.
type Check func(ctx context.Context, db *sqldb.DB) error

// Run runs f as the subtests "sqlite" and "postgres", each with a fresh database, and the checks after it.
func Run(t *testing.T, f func(t *testing.T, db *sqldb.DB), checks ...Check) {
	t.Helper()
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) { f(t, Open(t, dialect, checks...)) })
	}
}

// Open returns a fresh database. When the test ends, after all that it registered itself with Cleanup later, the checks
// run and the database is closed and removed: the test must not close it.
func Open(t testing.TB, dialect sqldb.Dialect, checks ...Check) *sqldb.DB {
	t.Helper()
	url := URL(t, dialect)
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	db, err := sqldb.Open(ctx, sqldb.Options{URL: url, ReadMax: patience})
	if err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), setUp)
		defer cancel()
		for _, check := range checks {
			if err := check(ctx, db); err != nil {
				t.Errorf("after the test, in its database on %s: %v", dialect, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Errorf("sqldbtest: close: %v", err)
		}
	})
	return db
}

// URL returns the URL of a fresh database with the present schema, which is removed when the test ends.
func URL(t testing.TB, dialect sqldb.Dialect) string {
	t.Helper()
	if dialect == sqldb.Postgres {
		return postgresCopy(t)
	}
	template, err := sqliteTemplate()
	if err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	path := filepath.Join(t.TempDir(), "parley.db")
	if err := os.WriteFile(path, template, 0o600); err != nil {
		t.Fatalf("sqldbtest: %v", err)
	}
	return "sqlite:" + path
}

// sqliteTemplate is the content of a database file with the present schema, made once a process.
var sqliteTemplate = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "parley-sqlite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	if err := migrate("sqlite:" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// migrate brings the database at url to the present schema. It is whole and closed on return.
func migrate(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	db, err := sqldb.Open(ctx, sqldb.Options{URL: url})
	if err != nil {
		return err
	}
	_, err = schema.Migrate(ctx, db)
	if closing := db.Close(); err == nil {
		err = closing
	}
	return err
}
