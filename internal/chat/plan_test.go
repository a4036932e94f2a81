package chat

import (
	"database/sql"
	"strings"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestPlans holds the queries of the hot paths to their word: each finds its rows by an index. A plan that reads
// a whole table would pass every other test, and grow with the database.
func TestPlans(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite)
	queries := map[string]string{
		"older history": selectOlder, "newer history": selectNewer, "made": selectMade, "changed": selectChanged,
	}
	for name, m := range map[string]*sqldb.Multi{
		"lock": lockBuckets[sqldb.SQLite], "heads": saveHeads, "last": saveLast, "receipts": saveReceipts, "members": selectMembers,
		"senders": selectSenders, "sent": selectSent, "replies": selectReplies, "messages": selectMessages,
		"insert": insertMessages,
	} {
		queries[name] = m.Text(sqldb.SQLite, 4)
	}
	for name, query := range queries {
		err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
			var plan []string
			args := make([]any, max(strings.Count(query, "?"), highest(query)))
			err := tx.Each(t.Context(), func(r *sql.Rows) error {
				var id, parent, unused int
				var detail string
				err := r.Scan(&id, &parent, &unused, &detail)
				plan = append(plan, detail)
				return err
			}, "EXPLAIN QUERY PLAN "+query, args...)
			for _, step := range plan {
				// Reading the rows that came with the statement is no scan of a table.
				if strings.HasPrefix(step, "SCAN ") && !strings.HasPrefix(step, "SCAN v") && step != "SCAN halves" && !strings.Contains(step, "CONSTANT ROW") && !strings.Contains(step, "-ROW VALUES") {
					t.Errorf("%s: %s\n%s", name, step, strings.Join(plan, "\n"))
				}
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// highest is the number of the last parameter of a query that numbers them, at most nine.
func highest(query string) int {
	for n := 9; n > 0; n-- {
		if strings.Contains(query, "$"+string(rune('0'+n))) {
			return n
		}
	}
	return 0
}
