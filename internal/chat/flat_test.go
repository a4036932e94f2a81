package chat

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestSendCostsTheSameInAnyGroup counts the statements of a send in a group of ten and in one of ten thousand, and on
// PostgreSQL the rows that they read and write: they are the same.
func TestSendCostsTheSameInAnyGroup(t *testing.T) {
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) { sendCostsTheSame(t, dialect) })
	}
}

func sendCostsTheSame(t *testing.T, dialect sqldb.Dialect) {
	const sends = 40
	// PostgreSQL's counts are those of the one connection that does it all.
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: sqldbtest.URL(t, dialect), Conns: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	n := start(t, db, Options{PollEvery: time.Hour})
	var statements []int64
	var touched [][]int64
	for _, size := range []int{10, 10_000} {
		cv := n.group(t, "ann")
		var members []string
		for i := range size {
			members = append(members, fmt.Sprintf("m%d-%d", size, i))
		}
		for some := range slices.Chunk(members, 1000) {
			if _, err := n.AddMembers(t.Context(), "ann", string(cv.ID), some, ""); err != nil {
				t.Fatal(err)
			}
		}
		n.send(t, "ann", cv.ID, "The first is for what is remembered of the membership.", "")
		rows := rowsTouched(t, db)
		var each []int64 // a beat may fall among them
		for i := range sends {
			before := db.Stats().Statements
			n.send(t, "ann", cv.ID, "x", fmt.Sprint(i))
			each = append(each, db.Stats().Statements-before)
		}
		slices.Sort(each)
		statements = append(statements, each[sends/2])
		if dialect == sqldb.Postgres {
			after := rowsTouched(t, db)
			for i := range after {
				after[i] -= rows[i]
			}
			touched = append(touched, after)
		}
	}
	if statements[0] != statements[1] || statements[0] > 7 {
		t.Errorf("a send takes %d statements in a group of 10 and %d in one of 10,000", statements[0], statements[1])
	}
	// Plans made for a small table may fetch some rows more.
	if len(touched) > 0 && (!slices.Equal(touched[0][:2], touched[1][:2]) || touched[1][2] > max(touched[0][2], 8*sends)) {
		t.Errorf("%d sends inserted, updated and fetched %v rows in a group of 10 and %v in one of 10,000", sends, touched[0], touched[1])
	}
}

// rowsTouched are the rows inserted, updated, and fetched by an index or otherwise, in all tables that a send concerns.
func rowsTouched(t *testing.T, db *sqldb.DB) []int64 {
	t.Helper()
	if db.Dialect() != sqldb.Postgres {
		return nil
	}
	rows := make([]int64, 3)
	err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
		return tx.Each(t.Context(), func(sqldb.Row) error { return nil }, `SELECT pg_stat_force_next_flush()`)
	})
	if err == nil {
		err = db.Read(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.One(t.Context(), []any{&rows[0], &rows[1], &rows[2]}, `SELECT CAST(SUM(n_tup_ins) AS BIGINT), CAST(SUM(n_tup_upd) AS BIGINT),
				CAST(SUM(COALESCE(idx_tup_fetch, 0) + seq_tup_read) AS BIGINT)
				FROM pg_stat_user_tables WHERE relname IN ('messages', 'members', 'conversations', 'buckets', 'receipts')`)
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
