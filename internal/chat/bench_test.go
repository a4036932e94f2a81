package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// BenchmarkSend commits durable sends to ten conversations, with so many unanswered at a time.
func BenchmarkSend(b *testing.B) {
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		for _, inFlight := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%v/%d", dialect, inFlight), func(b *testing.B) {
				db := sqldbtest.Open(b, dialect)
				n := start(b, db, Options{})
				var convs []Conversation
				for range 10 {
					convs = append(convs, n.group(b, "ann", "bob"))
				}
				content := "A message of two hundred bytes or so, as people write them: neither long nor short, with a comma here and there, and a full stop at the end, which is where this one stops. It has no more to say than that."
				before := db.Stats().Commits
				free := make(chan struct{}, inFlight)
				var wg sync.WaitGroup
				i := 0
				b.ResetTimer()
				for b.Loop() {
					free <- struct{}{}
					wg.Add(1)
					i++
					n.SendAsync(context.Background(), "ann", Draft{ConversationID: string(convs[i%10].ID), Content: &content, ClientMessageID: fmt.Sprint(i)}, func(_ json.RawMessage, err error) {
						if err != nil {
							b.Error(err)
						}
						<-free
						wg.Done()
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
				b.ReportMetric(float64(db.Stats().Commits-before)/float64(b.N), "commits/send")
			})
		}
	}
}
