package chat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/wire"
)

// startAt starts a node whose clock shows at, in milliseconds.
func startAt(t testing.TB, db *sqldb.DB, at *atomic.Int64, o Options) *node {
	n := newNode(t, db, nil, o)
	n.now = func() time.Time { return time.UnixMilli(at.Load()) }
	n.goes(t, n.Run)
	return n
}

func upTo(cid id.Conversation, seq int64) Mark { return Mark{ConversationID: string(cid), Seq: &seq} }

func ofMessage(m Message) Mark { return Mark{MessageID: string(m.ID)} }

// read marks, and wants the receipt to stand at delivered and read then.
func (n *node) read(t testing.TB, u id.User, at Mark, delivered, read int64) {
	t.Helper()
	got, err := n.Read(t.Context(), u, at)
	if err != nil || got.UserID != u || got.DeliveredSeq != delivered || got.ReadSeq != read {
		t.Errorf("Read(%s, %+v) = %+v, %v; want delivered %d, read %d", u, at, got, err, delivered, read)
	}
}

// delivered marks, and has it written at once.
func (n *node) delivered(t testing.TB, u id.User, at Mark) {
	t.Helper()
	if err := n.Delivered(u, at); err != nil {
		t.Errorf("Delivered(%s, %+v): %v", u, at, err)
	}
	n.deliveries.flush(t.Context())
}

// receipts is all that there is to know of a message, from pages of a size.
func (n *node) receipts(t testing.TB, u id.User, m id.Message, limit int) MessageReceipts {
	t.Helper()
	var all MessageReceipts
	for {
		page, err := n.Receipts(t.Context(), u, string(m), all.Next, limit)
		if err != nil {
			t.Fatalf("Receipts(%s): %v", m, err)
		}
		page.Readers = append(all.Readers, page.Readers...)
		if all = page; all.Next == "" {
			return all
		}
	}
}

func (n *node) rows(t testing.TB, query string) (count int) {
	t.Helper()
	err := n.db.Read(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.One(t.Context(), []any{&count}, query)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func TestReceipts(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		var clock atomic.Int64
		n := startAt(t, db, &clock, Options{DeliveriesEvery: time.Hour})
		clock.Store(1000)
		cv := n.group(t, "ann", "bob", "cem")
		var ms []Message
		for i := range 5 {
			ms = append(ms, n.send(t, "ann", cv.ID, fmt.Sprint(i+1), ""))
		}
		if got := n.receipts(t, "ann", ms[0].ID, 10); got.Status != Sent || got.Counts != (ReceiptCounts{Sent: 2}) {
			t.Errorf("of a message that reached nobody: %+v", got)
		}
		if rows := n.rows(t, `SELECT COUNT(*) FROM receipts`); rows != 0 {
			t.Errorf("%d ranges of one who passed nothing but his own", rows)
		}

		clock.Store(2000)
		n.delivered(t, "bob", ofMessage(ms[2]))
		clock.Store(3000)
		n.read(t, "bob", ofMessage(ms[1]), 3, 2)
		clock.Store(4000)
		n.read(t, "bob", upTo(cv.ID, 1), 3, 2)  // below: nothing
		n.read(t, "bob", upTo(cv.ID, 99), 5, 5) // above: clamped
		n.delivered(t, "bob", upTo(cv.ID, 4))   // read already
		clock.Store(5000)
		n.send(t, "cem", cv.ID, "silently reads all", "")

		at := func(millis wire.Time) *wire.Time { return &millis }
		for seq, want := range map[int]Reader{
			1: {"bob", Read, at(2000), at(3000)},
			2: {"bob", Read, at(2000), at(3000)},
			3: {"bob", Read, at(2000), at(4000)},
			4: {"bob", Read, at(4000), at(4000)},
		} {
			got := n.receipts(t, "cem", ms[seq-1].ID, 1)
			wantReaders(t, fmt.Sprintf("message %d", seq), got.Readers, []Reader{want, {"cem", Read, at(5000), at(5000)}})
			if got.Status != Read || got.Counts != (ReceiptCounts{2, 2, 2}) {
				t.Errorf("message %d: %+v", seq, got)
			}
		}
		ofCem := n.send(t, "cem", cv.ID, "one more", "")
		n.delivered(t, "ann", ofMessage(ofCem))
		n.delivered(t, "bob", ofMessage(ofCem))
		n.read(t, "bob", ofMessage(ofCem), 7, 7)
		if got := n.receipts(t, "cem", ofCem.ID, 10); got.Status != Delivered || got.Counts != (ReceiptCounts{Read: 1, Delivered: 2, Sent: 2}) {
			t.Errorf("read by one of two: %+v", got)
		}
		// bob: 1-3 delivered, 1-2, 3-5, and 6-7 both ways; cem: 1-6 read; ann: 6-7 delivered.
		if rows := n.rows(t, `SELECT COUNT(*) FROM receipts`); rows != 7 {
			t.Errorf("%d ranges, want 7", rows)
		}
	}, Check)
}

func wantReaders(t rapid.TB, what string, got, want []Reader) {
	t.Helper()
	text := func(readers []Reader) string {
		var b strings.Builder
		for _, r := range readers {
			fmt.Fprintf(&b, "%s %s", r.UserID, r.Status)
			for _, at := range []*wire.Time{r.DeliveredAt, r.ReadAt} {
				if at == nil {
					b.WriteString(" -")
				} else {
					fmt.Fprintf(&b, " %d", *at)
				}
			}
			b.WriteString("; ")
		}
		return b.String()
	}
	if text(got) != text(want) {
		t.Errorf("%s: %s\nwant %s", what, text(got), text(want))
	}
}

// TestReceiptsOfOneBatch commits marks of one member together: they become one advance, and each is answered with it.
func TestReceiptsOfOneBatch(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob")
		var ms []Message
		for range 5 {
			ms = append(ms, n.send(t, "ann", cv.ID, "x", ""))
		}
		bob := mark{user: "bob", conv: cv.ID}
		items := []*marking{
			{mark: bob, kind: Read}, {mark: bob, kind: Read}, // nothing, twice
			{mark: bob, kind: Delivered, seq: 5},
			{mark: mark{user: "bob", message: ms[2].ID}, kind: Read},
			{mark: bob, kind: Read, seq: 1},
			{mark: mark{user: "eve", message: ms[2].ID}, kind: Read},
		}
		if err := n.commitMarks(t.Context(), items); err != nil {
			t.Fatal(err)
		}
		for i, m := range items[:5] {
			if want := (Receipt{cv.ID, "bob", 5, 3}); m.err != nil || m.receipt != want {
				t.Errorf("mark %d: %+v, %v, want %+v", i, m.receipt, m.err, want)
			}
		}
		wantProblem(t, "a stranger's mark among those of others", items[5].err, problem.NotFound, "Message not found")
		if all, read := n.rows(t, `SELECT COUNT(*) FROM receipts`), n.rows(t, `SELECT COUNT(*) FROM receipts WHERE kind = 'read' AND from_seq = 1 AND to_seq = 3`); all != 2 || read != 1 {
			t.Errorf("%d ranges, of which %d say that 1 to 3 were read, want 2 and 1", all, read)
		}
	}, Check)
}

func TestReceiptsAreForMembers(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob", "left")
		m := n.send(t, "ann", cv.ID, "x", "")
		never := id.NewMessage(cv.ID.Bucket(), time.Now())
		if _, err := n.RemoveMember(t.Context(), "left", string(cv.ID), "left"); err != nil {
			t.Fatal(err)
		}
		below := int64(-1)
		for _, u := range []id.User{"eve", "left"} {
			for what, tt := range map[string]struct {
				at      Mark
				code    problem.Code
				message string
			}{
				"a message":                {ofMessage(m), problem.NotFound, "Message not found"},
				"a message that never was": {Mark{MessageID: string(never)}, problem.NotFound, "Message not found"},
				"no id of a message":       {Mark{MessageID: "x"}, problem.NotFound, "Message not found"},
				"a conversation":           {upTo(cv.ID, 1), problem.NotFound, problem.ConversationNotFound},
				"no id of a conversation":  {upTo("x", 1), problem.NotFound, problem.ConversationNotFound},
				"no seq":                   {Mark{ConversationID: string(cv.ID)}, problem.BadRequest, ""},
				"a negative seq":           {Mark{ConversationID: string(cv.ID), Seq: &below}, problem.BadRequest, ""},
				"nothing":                  {Mark{}, problem.BadRequest, ""},
			} {
				_, err := n.Read(t.Context(), u, tt.at)
				wantProblem(t, string(u)+" reads "+what, err, tt.code, tt.message)
			}
			n.delivered(t, u, ofMessage(m)) // in vain
			for _, mid := range []id.Message{m.ID, never, "x"} {
				_, err := n.Receipts(t.Context(), u, string(mid), "", 10)
				wantProblem(t, "receipts", err, problem.NotFound, "Message not found")
			}
		}
		wantReaders(t, "who is concerned", n.receipts(t, "bob", m.ID, 10).Readers, []Reader{{"bob", Sent, nil, nil}, {"left", Sent, nil, nil}})
	}, Check)
}

// TestReceiptsOutliveMembership has a member leave and come back: each message knows him as he was when it was sent.
func TestReceiptsOutliveMembership(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		var clock atomic.Int64
		n := startAt(t, db, &clock, Options{DeliveriesEvery: time.Hour})
		clock.Store(1000)
		cv := n.group(t, "ann", "bob")
		both := n.send(t, "ann", cv.ID, "1", "")
		n.read(t, "bob", ofMessage(both), 1, 1)
		unread := n.send(t, "ann", cv.ID, "2", "")
		if _, err := n.RemoveMember(t.Context(), "ann", string(cv.ID), "bob"); err != nil { // leaves 3
			t.Fatal(err)
		}
		clock.Store(2000)
		away := n.send(t, "ann", cv.ID, "4", "")
		if _, err := n.AddMembers(t.Context(), "ann", string(cv.ID), []string{"bob"}, ""); err != nil { // leaves 5
			t.Fatal(err)
		}
		n.read(t, "bob", ofMessage(unread), 4, 4) // it concerned another membership
		again := n.send(t, "ann", cv.ID, "6", "")
		n.read(t, "bob", ofMessage(again), 6, 6)
		at := func(millis wire.Time) *wire.Time { return &millis }
		for what, tt := range map[string]struct {
			m    Message
			want []Reader
		}{
			"read before leaving":     {both, []Reader{{"bob", Read, at(1000), at(1000)}}},
			"not read before leaving": {unread, []Reader{{"bob", Sent, nil, nil}}},
			"sent in between":         {away, nil},
			"read after coming back":  {again, []Reader{{"bob", Read, at(2000), at(2000)}}},
		} {
			wantReaders(t, what, n.receipts(t, "ann", tt.m.ID, 10).Readers, tt.want)
		}
	}, Check)
}

// naive keeps receipts as the tutorial does, a row for each message and each member whom it concerns.
type naive struct {
	clock    int64
	messages []*naiveMessage
	joined   map[id.User]int64 // of the members
	reached  map[id.User]*Receipt
}

type naiveMessage struct {
	id   id.Message
	rows map[id.User]*[2]int64 // delivered and read, in milliseconds
}

func (nv *naive) append(mid id.Message, sender id.User) {
	m := &naiveMessage{mid, map[id.User]*[2]int64{}}
	for u := range nv.joined {
		if u != sender {
			m.rows[u] = new([2]int64)
		}
	}
	nv.messages = append(nv.messages, m)
}

func (nv *naive) last() int64 { return int64(len(nv.messages)) }

func (nv *naive) mark(u id.User, seq int64, kind Status) {
	seq = min(seq, nv.last())
	for s := nv.joined[u] + 1; s <= seq; s++ {
		if row := nv.messages[s-1].rows[u]; row != nil {
			if row[0] == 0 {
				row[0] = nv.clock
			}
			if row[1] == 0 && kind == Read {
				row[1] = nv.clock
			}
		}
	}
	nv.reached[u].DeliveredSeq = max(nv.reached[u].DeliveredSeq, seq)
	if kind == Read {
		nv.reached[u].ReadSeq = max(nv.reached[u].ReadSeq, seq)
	}
}

func (nv *naive) of(m *naiveMessage) (readers []Reader, counts ReceiptCounts) {
	for _, u := range slices.Sorted(maps.Keys(m.rows)) {
		r := Reader{UserID: u, Status: Sent}
		counts.Sent++
		for i, field := range []**wire.Time{&r.DeliveredAt, &r.ReadAt} {
			if at := wire.Time(m.rows[u][i]); at != 0 {
				*field = &at
				r.Status = []Status{Delivered, Read}[i]
				*[]*int64{&counts.Delivered, &counts.Read}[i]++
			}
		}
		readers = append(readers, r)
	}
	return readers, counts
}

// TestReceiptsAgreeWithRows compares cursors and ranges with a row for each message and member, over random lives of a group.
func TestReceiptsAgreeWithRows(t *testing.T) {
	users := []id.User{"ann", "bob", "cem", "dan"}
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		var clock atomic.Int64
		clock.Store(1)
		n := startAt(t, db, &clock, Options{DeliveriesEvery: time.Hour})
		rapid.Check(t, func(rt *rapid.T) {
			cv := n.group(t, "ann", "bob", "cem")
			nv := &naive{joined: map[id.User]int64{"ann": 0, "bob": 0, "cem": 0}, reached: map[id.User]*Receipt{}}
			for _, u := range users {
				nv.reached[u] = &Receipt{ConversationID: cv.ID, UserID: u}
			}
			system := func(mid id.Message) { // of ann, who adds and removes
				ann := *nv.reached["ann"]
				nv.append(mid, "ann")
				if ann.DeliveredSeq == nv.last()-1 {
					nv.reached["ann"].DeliveredSeq++
				}
				if ann.ReadSeq == nv.last()-1 {
					nv.reached["ann"].ReadSeq++
				}
			}
			newest := func() id.Message {
				page, err := n.History(t.Context(), "ann", string(cv.ID), HistoryRange{Limit: 1})
				if err != nil {
					rt.Fatal(err)
				}
				return page.Messages[0].ID
			}
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				nv.clock = clock.Add(1000)
				u := rapid.SampledFrom(users).Draw(rt, "who")
				_, member := nv.joined[u]
				what := rapid.SampledFrom([]string{"send", "send", "read", "read", "deliver", "deliver", "add or remove"}).Draw(rt, "what")
				switch {
				case what == "add or remove" && u == "ann":
				case what == "add or remove" && member:
					if _, err := n.RemoveMember(t.Context(), "ann", string(cv.ID), string(u)); err != nil {
						rt.Fatal(err)
					}
					delete(nv.joined, u)
					system(newest())
				case what == "add or remove":
					if _, err := n.AddMembers(t.Context(), "ann", string(cv.ID), []string{string(u)}, ""); err != nil {
						rt.Fatal(err)
					}
					nv.joined[u] = nv.last()
					*nv.reached[u] = Receipt{cv.ID, u, nv.last(), nv.last()}
					system(newest())
				case what == "send" && member:
					m := n.send(t, u, cv.ID, "x", "")
					nv.append(m.ID, u)
					nv.mark(u, m.Seq, Read)
				case what != "send":
					at, seq := Mark{}, rapid.Int64Range(0, nv.last()+2).Draw(rt, "seq")
					if rapid.Bool().Draw(rt, "by message") && seq > 0 && seq <= nv.last() {
						at.MessageID = string(nv.messages[seq-1].id)
					} else {
						at = upTo(cv.ID, seq)
					}
					if what == "deliver" {
						n.delivered(t, u, at)
						if member {
							nv.mark(u, seq, Delivered)
						}
						break
					}
					got, err := n.Read(t.Context(), u, at)
					if !member {
						wantProblem(t, "a stranger reads", err, problem.NotFound, "")
						break
					}
					nv.mark(u, seq, Read)
					if want := *nv.reached[u]; err != nil || got != want {
						rt.Fatalf("Read(%s, %d) = %+v, %v; want %+v", u, seq, got, err, want)
					}
				}
			}
			for i, m := range nv.messages {
				want, counts := nv.of(m)
				got := n.receipts(t, "ann", m.id, 2)
				wantReaders(rt, fmt.Sprintf("message %d", i+1), got.Readers, want)
				if got.Counts != counts {
					rt.Errorf("message %d: %+v, want %+v", i+1, got.Counts, counts)
				}
			}
		})
	}, Check)
}

// TestReceiptsAtOnce has members of two nodes send, read and receive at once. What each is told only advances.
func TestReceiptsAtOnce(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		nodes := []*node{start(t, db, Options{DeliveriesEvery: time.Millisecond}), start(t, db, Options{DeliveriesEvery: time.Millisecond})}
		users := []id.User{"ann", "bob", "cem", "dan", "eva", "fay"}
		cvs := []Conversation{nodes[0].group(t, "ann", "bob", "cem", "dan", "eva", "fay"), nodes[0].group(t, "ann", "bob", "cem", "dan", "eva", "fay")}
		const each = 30
		before := db.Stats().Commits
		var wg sync.WaitGroup
		for i, u := range users {
			for j, cv := range cvs {
				wg.Go(func() {
					n := nodes[(i+j)%2]
					for range each {
						n.send(t, u, cv.ID, "x", "")
					}
				})
				for _, n := range nodes {
					wg.Go(func() {
						var last Receipt
						for k := range int64(each) {
							if err := n.Delivered(u, upTo(cv.ID, 7*k)); err != nil {
								t.Errorf("Delivered: %v", err)
							}
							got, err := n.Read(t.Context(), u, upTo(cv.ID, 4*k))
							if err != nil || got.ReadSeq < last.ReadSeq || got.DeliveredSeq < last.DeliveredSeq || got.ReadSeq > got.DeliveredSeq {
								t.Errorf("Read = %+v, %v after %+v", got, err, last)
							}
							last = got
						}
					})
				}
			}
		}
		wg.Wait()
		if commits := db.Stats().Commits - before; commits >= int64(len(users)*len(cvs)*each*5) {
			t.Errorf("%d commits: as many as there was to commit", commits)
		}
		for _, cv := range cvs {
			for _, u := range users {
				last := int64(len(users) * each)
				nodes[0].read(t, u, upTo(cv.ID, last), last, last)
			}
		}
	}, Check)
}

// TestDeliveriesAreGathered holds them to a write a second, to their bound, and to what becomes of what could not be written.
func TestDeliveriesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var commits []map[mark]int64
		fails := false
		d := &deliveries{every: time.Second, most: 10, batchMax: 100, log: slog.New(slog.DiscardHandler), waiting: map[mark]int64{}, soon: make(chan struct{}, 1)}
		d.commit = func(_ context.Context, items []*marking) error {
			mu.Lock()
			defer mu.Unlock()
			if fails {
				return errors.New("no database")
			}
			got := map[mark]int64{}
			for _, m := range items {
				got[m.mark] = m.seq
			}
			commits = append(commits, got)
			return nil
		}
		taken := func() (all []map[mark]int64) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			all, commits = commits, nil
			return all
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); d.run(ctx) }()

		bob := mark{user: "bob", conv: id.NewConversation(1, time.Now())}
		add := func(m mark, seq int64) {
			t.Helper()
			if err := d.add(m, seq); err != nil {
				t.Errorf("add: %v", err)
			}
		}
		for seq := range int64(1000) {
			add(bob, 1000-seq)
		}
		if got := taken(); got != nil {
			t.Errorf("written at once: %v", got)
		}
		time.Sleep(time.Second) // allowed: the time of a synctest bubble
		if got := taken(); len(got) != 1 || len(got[0]) != 1 || got[0][bob] != 1000 {
			t.Errorf("after a second: %v", got)
		}
		for i := range 5 { // half of what may wait
			add(mark{user: id.User(fmt.Sprint(i)), conv: bob.conv}, 1)
		}
		if got := taken(); len(got) != 1 || len(got[0]) != 5 {
			t.Errorf("at half of the bound: %v", got)
		}

		mu.Lock()
		fails = true
		mu.Unlock()
		for i := range 10 {
			add(mark{user: id.User(fmt.Sprint(i)), conv: bob.conv}, 1)
		}
		time.Sleep(time.Second) // allowed: as above
		synctest.Wait()
		if err := d.add(bob, 1); !errors.Is(err, errTooMuch) || d.dropped.Load() != 1 {
			t.Errorf("beyond the bound: %v, %d dropped", err, d.dropped.Load())
		}
		add(mark{user: "3", conv: bob.conv}, 9) // one that waits already
		mu.Lock()
		fails = false
		mu.Unlock()
		time.Sleep(time.Second) // allowed: as above
		if got := taken(); len(got) != 1 || len(got[0]) != 10 || got[0][mark{user: "3", conv: bob.conv}] != 9 {
			t.Errorf("when it can be written again: %v", got)
		}

		add(bob, 1001)
		stop()
		<-ended
		if got := taken(); len(got) != 1 || got[0][bob] != 1001 {
			t.Errorf("at the end: %v", got)
		}
		if err := d.add(bob, 1002); !errors.Is(err, errTooMuch) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestDeliveredIsFlushedAtTheEnd restarts a node before what was delivered there is due.
func TestDeliveredIsFlushedAtTheEnd(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, nil, Options{DeliveriesEvery: time.Hour})
		stop := n.goes(t, n.Run)
		cv := n.group(t, "ann", "bob")
		m := n.send(t, "ann", cv.ID, "x", "")
		if err := n.Delivered("bob", ofMessage(m)); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := n.Read(t.Context(), "bob", ofMessage(m)); err == nil {
			t.Error("a node that has ended takes what is read")
		}
		n = start(t, db, Options{})
		if got := n.receipts(t, "ann", m.ID, 10); got.Status != Delivered {
			t.Errorf("after the restart: %+v", got)
		}
	}, Check)
}

// TestReadSurvivesKill kills a process at any moment while it sends and reads: what it said was read, is.
func TestReadSurvivesKill(t *testing.T) {
	const variable = "PARLEY_TEST_READS_OF"
	if url := os.Getenv(variable); url != "" { // the process that is killed
		db, err := sqldb.Open(t.Context(), sqldb.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob")
		for {
			m := n.send(t, "ann", cv.ID, "x", "")
			n.read(t, "bob", ofMessage(m), m.Seq, m.Seq)
			fmt.Println("read", m.ID, m.Seq)
		}
	}
	for _, dialect := range []sqldb.Dialect{sqldb.SQLite, sqldb.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			url := sqldbtest.URL(t, dialect)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReadSurvivesKill$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), variable+"="+url)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var last string
			var seq int64
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if _, err := fmt.Sscanf(lines.Text(), "read %s %d", &last, &seq); err == nil && seq == 50 {
					if err := cmd.Process.Kill(); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Wait(); seq < 50 {
				t.Fatalf("the process ended by itself: %v", err)
			}
			db, err := sqldb.Open(t.Context(), sqldb.Options{URL: url, ReadMax: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			n := newNode(t, db, nil, Options{})
			if got := n.receipts(t, "ann", id.Message(last), 10); got.Status != Read || got.Readers[0].ReadAt == nil {
				t.Errorf("message %d: %+v, want that it is read", seq, got)
			}
			if err := Check(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReceiptsOfOlderVersions brings up a database from before receipts had ranges: only sends advanced cursors there.
func TestReceiptsOfOlderVersions(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob", "cem", "dan")
		first := n.send(t, "ann", cv.ID, "1", "")
		n.send(t, "bob", cv.ID, "2", "")
		for _, u := range []string{"bob", "cem", "dan"} {
			if _, err := n.RemoveMember(t.Context(), "ann", string(cv.ID), u); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := n.AddMembers(t.Context(), "ann", string(cv.ID), []string{"dan"}, ""); err != nil {
			t.Fatal(err)
		}
		n.send(t, "ann", cv.ID, "7", "")
		n.send(t, "dan", cv.ID, "8", "")
		migration, err := os.ReadFile("../schema/" + db.Dialect().String() + "/0003_receipts.sql")
		if err != nil {
			t.Fatal(err)
		}
		err = db.InTx(t.Context(), func(tx *sqldb.Tx) error {
			for statement := range strings.SplitSeq("DROP TABLE receipts;\nDROP TABLE past_members;\n"+strings.TrimSpace(string(migration)), ";\n") {
				if _, err := tx.Exec(t.Context(), statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := n.receipts(t, "ann", first.ID, 10)
		if got.Counts != (ReceiptCounts{Read: 1, Delivered: 1, Sent: 2}) || got.Readers[0].UserID != "bob" || got.Readers[0].ReadAt == nil {
			t.Errorf("of the first message: %+v, want that bob has read it, and cem not", got)
		}
	}, Check)
}
