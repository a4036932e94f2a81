package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/internal/id"
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

// BenchmarkReceipts asks for the counts and a page of 100 readers of one message in a group of 10,000, of whom half have
// read it, a quarter has it delivered, and some have left and come back.
func BenchmarkReceipts(b *testing.B) {
	const members, limit = 10_000, 100
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			n := start(b, sqldbtest.Open(b, dialect, Check), Options{})
			var users []id.User
			for i := range members - 1 {
				users = append(users, id.User(fmt.Sprintf("user-%05d", i)))
			}
			cv := n.group(b, "ann")
			for part := range slices.Chunk(users, 500) {
				var names []string
				for _, u := range part {
					names = append(names, string(u))
				}
				if _, err := n.AddMembers(b.Context(), "ann", string(cv.ID), names, ""); err != nil {
					b.Fatal(err)
				}
			}
			var m Message
			for i := range 20 {
				m = n.send(b, "ann", cv.ID, fmt.Sprint(i), "")
				for _, u := range users[:members/4] { // they read each message in its turn, others only the last
					if err := n.Delivered(u, Mark{MessageID: string(m.ID)}); err != nil {
						b.Fatal(err)
					}
				}
				n.deliveries.flush(b.Context())
			}
			for _, u := range users[100:200] {
				if _, err := n.RemoveMember(b.Context(), "ann", string(cv.ID), string(u)); err != nil {
					b.Fatal(err)
				}
				if _, err := n.AddMembers(b.Context(), "ann", string(cv.ID), []string{string(u)}, ""); err != nil {
					b.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			for part := range slices.Chunk(users[members/4:3*members/4], 50) {
				wg.Go(func() {
					for _, u := range part {
						if _, err := n.Read(b.Context(), u, Mark{MessageID: string(m.ID)}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			var took []time.Duration
			i := 0
			for b.Loop() {
				began := time.Now()
				got, err := n.Receipts(b.Context(), "ann", string(m.ID), users[(i*7919)%(members-limit-1)], limit)
				took = append(took, time.Since(began))
				if want := (ReceiptCounts{Read: members / 2, Delivered: 3 * members / 4, Sent: members - 1}); err != nil || got.Counts != want || len(got.Readers) != limit {
					b.Fatalf("Receipts = %+v and %d readers, %v; want %+v", got.Counts, len(got.Readers), err, want)
				}
				i++
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
		})
	}
}

// BenchmarkSync has a member of a thousand conversations catch up when fifty of them have got a message.
func BenchmarkSync(b *testing.B) {
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			n := start(b, sqldbtest.Open(b, dialect), Options{})
			var convs []Conversation
			for range 1000 {
				convs = append(convs, n.group(b, "ann", "bob", "cid"))
			}
			for i, cv := range convs {
				for j := range 3 {
					n.send(b, "bob", cv.ID, "Something that was said before.", fmt.Sprint(i, "/", j))
				}
			}
			before, err := n.Sync(b.Context(), "ann", "", 0)
			if err != nil {
				b.Fatal(err)
			}
			for i := range 50 {
				n.send(b, "bob", convs[i*20].ID, "Something new.", fmt.Sprint("new ", i))
			}
			reads := n.db.Stats().Reads
			for b.Loop() {
				page, err := n.Sync(b.Context(), "ann", before.Cursor, 0)
				if err != nil || len(page.Changes) != 50 || page.HasMore {
					b.Fatalf("%d changes, more: %v, %v", len(page.Changes), page.HasMore, err)
				}
			}
			b.ReportMetric(float64(n.db.Stats().Reads-reads)/float64(b.N), "reads/op")
		})
	}
}

// BenchmarkBehind has a member of a hundred conversations page through a million messages that he missed, and says by how
// much the heap grew at the most: with -benchtime 1x.
func BenchmarkBehind(b *testing.B) {
	const conversations, each, batch = 100, 10_000, 1000
	content := "A message of two hundred bytes or so, as people write them: neither long nor short, with a comma here and there, and a full stop at the end, which is where this one stops. It has no more to say than that."
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		b.Run(dialect.String(), func(b *testing.B) {
			n := start(b, sqldbtest.Open(b, dialect), Options{})
			var convs []Conversation
			for range conversations {
				convs = append(convs, n.group(b, "ann", "bob"))
			}
			before, err := n.Sync(b.Context(), "ann", "", 0)
			if err != nil {
				b.Fatal(err)
			}
			for _, cv := range convs {
				for range each / batch {
					err := n.changeAndTell(b.Context(), cv.ID.Bucket(), func(l *logTx) error {
						cv, _, err := loadConversation(b.Context(), l.Tx, cv.ID, "bob")
						rows := make([][]any, batch)
						for i := range rows {
							m := Message{ID: id.NewMessage(cv.ID.Bucket(), time.Now()), ConversationID: cv.ID, SenderID: "bob", Type: "text", Content: &content}
							cv.append(l, &m)
							rows[i] = m.insertRow()
						}
						l.Queue(insertMessages, rows, nil)
						l.Queue(saveLast, [][]any{cv.lastRow()}, nil)
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			runtime.GC()
			var first, now runtime.MemStats
			runtime.ReadMemStats(&first)
			most, pages := uint64(0), 0
			for b.Loop() {
				got, cursor := 0, before.Cursor
				for more := true; more; pages++ {
					page, err := n.Sync(b.Context(), "ann", cursor, syncLimitMax)
					if err != nil {
						b.Fatal(err)
					}
					got, cursor, more = got+len(page.Changes), page.Cursor, page.HasMore
					if pages%20 == 0 {
						runtime.ReadMemStats(&now)
						most = max(most, now.HeapInuse)
					}
				}
				if got != conversations*each {
					b.Fatalf("%d messages, want %d", got, conversations*each)
				}
			}
			b.ReportMetric(float64(int64(most)-int64(first.HeapInuse))/1e6, "MB-more")
			b.ReportMetric(float64(pages)/float64(b.N), "pages")
		})
	}
}
