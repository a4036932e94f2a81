package schema_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestMigrate(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		before, err := schema.ReadMeta(t.Context(), db)
		if err != nil || before.Epoch == "" || before.RequestKey == "" {
			t.Fatalf("ReadMeta = %+v, %v", before, err)
		}
		if applied, err := schema.Migrate(t.Context(), db); err != nil || applied != 0 {
			t.Errorf("a second Migrate applied %d, %v", applied, err)
		}
		if after, err := schema.ReadMeta(t.Context(), db); err != nil || after != before {
			t.Errorf("the second Migrate changed %+v to %+v, %v", before, after, err)
		}
		if pending, err := schema.Pending(t.Context(), db); err != nil || pending {
			t.Errorf("Pending = %v, %v", pending, err)
		}
		err = db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE meta SET value = '64' WHERE key = 'buckets'`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := schema.Migrate(t.Context(), db); err == nil || !strings.Contains(err.Error(), "64 buckets") {
			t.Errorf("a database of 64 buckets: %v", err)
		}
	})
}

// TestNodesMigrateTogether starts several at once on an empty database.
func TestNodesMigrateTogether(t *testing.T) {
	url := sqldbtest.OpenPostgresURL(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			db, err := sqldb.Open(context.Background(), sqldb.Options{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := schema.Migrate(context.Background(), db); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestEnginesAgree compares the columns of both schemas: one text is to serve both.
func TestEnginesAgree(t *testing.T) {
	columns := map[string][]string{}
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		query := `SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table' AND m.name NOT LIKE 'goose%' AND m.name NOT LIKE 'sqlite%' ORDER BY 1, 2`
		if db.Dialect() == sqldb.Postgres {
			query = `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'goose%' ORDER BY 1, 2`
		}
		err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
			return tx.Each(t.Context(), func(row sqldb.Row) error {
				var table, column string
				err := row.Scan(&table, &column)
				columns[db.Dialect().String()] = append(columns[db.Dialect().String()], table+"."+column)
				return err
			}, query)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	a, b := strings.Join(columns["sqlite"], " "), strings.Join(columns["postgres"], " ")
	if a != b || a == "" {
		t.Errorf("SQLite has %s\nPostgreSQL has %s", a, b)
	}
}
