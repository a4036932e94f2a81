package chat

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// whole matches a step of a plan that reads a whole table, on either engine.
var whole = regexp.MustCompile(`^SCAN (m|c|p|r|middle|messages|members|conversations|past_members|receipts)\b|Seq Scan on |(Hash|Merge) Join`)

// TestPlans holds the queries of the hot paths to their word: each finds its rows by an index. A plan that reads
// a whole table would pass every other test, and grow with the database.
func TestPlans(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		queries := map[string]string{
			"older history": selectOlder, "newer history": selectNewer, "made": selectMade, "changed": selectChanged,
			"sent message": selectSentMessage, "counts of receipts": selectCounts, "readers": selectReaders, "pass a system message": passSystemMessage,
		}
		for name, m := range map[string]*sqldb.Multi{
			"lock": lockBuckets[db.Dialect()], "heads": saveHeads, "last": saveLast, "cursors": saveCursors, "ranges": insertRanges, "members": selectMembers,
			"senders": selectSenders, "sent": selectSent, "replies": selectReplies, "messages": selectMessages,
			"places": selectPlaces, "places by message": selectMessagePlaces, "past members": insertPastMembers, "members behind": selectMembersBehind,
		} {
			queries[name] = m.Text(db.Dialect(), 4)
		}
		for name, query := range queries {
			explain := "EXPLAIN QUERY PLAN "
			if db.Dialect() == sqldb.Postgres {
				explain = "EXPLAIN "
			}
			args := make([]any, max(strings.Count(query, "?"), highest(query)))
			for i := range args {
				args[i] = "0" // of any type
				if regexp.MustCompile(fmt.Sprintf(`\$%d::\w+\[\]`, i+1)).MatchString(query) {
					args[i] = "{}"
				}
			}
			var plan []string
			err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
				return tx.Each(t.Context(), func(r sqldb.Row) error {
					var step string
					row := []any{&step}
					if db.Dialect() == sqldb.SQLite { // three numbers stand before it
						row = []any{new(any), new(any), new(any), &step}
					}
					err := r.Scan(row...)
					plan = append(plan, step)
					return err
				}, explain+query, args...)
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, step := range plan {
				if whole.MatchString(step) {
					t.Errorf("%s: %s in\n%s", name, step, strings.Join(plan, "\n"))
				}
			}
		}
	})
}

// highest is the number of the last parameter of a query that numbers them.
func highest(query string) (n int) {
	for _, m := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(query, -1) {
		k := 0
		for _, c := range m[1] {
			k = k*10 + int(c-'0')
		}
		n = max(n, k)
	}
	return n
}
