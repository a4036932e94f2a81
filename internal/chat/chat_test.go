package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/wire"
)

// node is a Chat that runs, with the commits that its feed handled.
type node struct {
	*Chat

	mu      sync.Mutex
	commits []Commit
	users   map[id.User]bool // who is here
	changed chan struct{}
}

func start(t testing.TB, db *sqldb.DB, o Options) *node {
	t.Helper()
	return startOn(t, db, nil, o)
}

func startOn(t testing.TB, db *sqldb.DB, b *bus.Bus, o Options) *node {
	t.Helper()
	n := newNode(t, db, b, o)
	n.goes(t, n.Run)
	if o.Shared && o.SleepAfter == 0 {
		eventually(t, "it listens to everything", func() bool {
			for b := range id.Buckets {
				if !n.awakeAt(id.Bucket(b)) {
					return false
				}
			}
			return true
		})
	}
	return n
}

// startKillable starts a node that ends, when kill is called, as one that is killed: its run is left open.
func startKillable(t testing.TB, db *sqldb.DB, o Options) (n *node, kill func()) {
	t.Helper()
	n = newNode(t, db, nil, o)
	return n, n.goes(t, n.work)
}

// goes has the node run until the test ends or stop is called.
func (n *node) goes(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = run(ctx) // ends with ctx's error
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// newNode is a node that has started and does not run yet.
func newNode(t testing.TB, db *sqldb.DB, b *bus.Bus, o Options) *node {
	t.Helper()
	n := &node{changed: make(chan struct{}, 1)}
	c, err := New(t.Context(), Parts{
		DB: db, Bus: b, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Now: time.Now,
		Metrics: prometheus.NewRegistry(), EnsureUsers: func(context.Context, *sqldb.Tx, []id.User) error { return nil },
		Present: func(u id.User) bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.users[u]
		},
		Handle: func(c Commit) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.commits = append(n.commits, c)
			select {
			case n.changed <- struct{}{}:
			default:
			}
		},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	n.Chat = c
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for b := range id.Buckets {
		if o.SleepAfter == 0 { // it is to handle everything
			c.Feed.Keep(id.Bucket(b), 1)
		}
	}
	return n
}

// handled waits until the feed handled every commit so far, and returns the changes of a conversation in their order.
func (n *node) handled(t testing.TB, cid id.Conversation) []Change {
	t.Helper()
	heads, err := n.readHeads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for n.Feed.Applied(cid.Bucket()) < heads[cid.Bucket()] {
		select {
		case <-n.changed:
		case <-time.After(time.Millisecond): // the position is stored after the handler returned
		case <-deadline:
			t.Fatalf("the feed is at %d, the bucket at %d", n.Feed.Applied(cid.Bucket()), heads[cid.Bucket()])
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var changes []Change
	for _, c := range n.commits {
		for _, ch := range c.Changes {
			if ch.Conversation == cid {
				changes = append(changes, ch)
			}
		}
	}
	return changes
}

func (n *node) group(t testing.TB, owner id.User, others ...string) Conversation {
	t.Helper()
	cv, made, err := n.Create(t.Context(), owner, NewConversation{Type: Group, Name: "g", MemberIDs: others})
	if err != nil || !made {
		t.Fatalf("Create: made %v, %v", made, err)
	}
	return cv
}

func text1(s string) *string { return &s }

func (n *node) send(t testing.TB, u id.User, cid id.Conversation, content, client string) Message {
	t.Helper()
	row, err := n.Send(t.Context(), u, Draft{ConversationID: string(cid), Content: &content, ClientMessageID: client})
	if err != nil {
		t.Fatalf("Send(%s, %q): %v", u, content, err)
	}
	var m Message
	if err := json.Unmarshal(row, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func wantProblem(t testing.TB, what string, err error, code problem.Code, message string) {
	t.Helper()
	pe, ok := errors.AsType[*problem.Error](err)
	if !ok || pe.Code != code || message != "" && pe.Message != message {
		t.Errorf("%s: %v, want %s %q", what, err, code, message)
	}
}

func TestSend(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{Judge: func(_ context.Context, s string) (bool, error) { return s == "spam", nil }})
		cv := n.group(t, "ann", "bob")

		first := n.send(t, "ann", cv.ID, "hello", "c1")
		if first.Seq != 1 || first.Type != "text" || first.ClientMessageID != "c1" || *first.Content != "hello" || first.SenderID != "ann" || first.IsFlagged {
			t.Errorf("first message: %+v", first)
		}
		if again := n.send(t, "ann", cv.ID, "hello", "c1"); again.ID != first.ID || again.Seq != 1 || again.ClientMessageID != "c1" {
			t.Errorf("the same client_message_id answered %+v, want %+v", again, first)
		}
		_, err := n.Send(t.Context(), "ann", Draft{ConversationID: string(cv.ID), Content: text1("other"), ClientMessageID: "c1"})
		wantProblem(t, "another draft under the same client_message_id", err, problem.Conflict, "")
		if other := n.send(t, "bob", cv.ID, "hello", "c1"); other.ID == first.ID || other.Seq != 2 {
			t.Errorf("another sender's client_message_id answered %+v", other)
		}
		flagged := n.send(t, "bob", cv.ID, "spam", "")
		if flagged.IsFlagged {
			t.Error("a member sees what was flagged")
		}
		page, err := n.History(t.Context(), "ann", string(cv.ID), HistoryRange{})
		if err != nil || len(page.Messages) != 3 || !page.Messages[2].IsFlagged {
			t.Errorf("the owner's history: %+v, %v; want the third flagged", page, err)
		}
		reply, err := n.Send(t.Context(), "bob", Draft{ConversationID: string(cv.ID), Content: text1("re"), ReplyToID: text1(string(first.ID)), Metadata: json.RawMessage(`{"a": [1, 2]}`)})
		if err != nil {
			t.Fatal(err)
		}
		var m Message
		if err := json.Unmarshal(reply, &m); err != nil || *m.ReplyToID != first.ID || string(m.Metadata) != `{"a":[1,2]}` {
			t.Errorf("reply: %s, %v", reply, err)
		}

		for name, tt := range map[string]struct {
			sender id.User
			draft  Draft
			code   problem.Code
			words  string
		}{
			"no member":               {"eve", Draft{Content: text1("x")}, problem.NotFound, problem.ConversationNotFound},
			"no such conversation":    {"ann", Draft{ConversationID: string(id.NewConversation(3, time.Now())), Content: text1("x")}, problem.NotFound, problem.ConversationNotFound},
			"no id":                   {"ann", Draft{ConversationID: "lobby", Content: text1("x")}, problem.NotFound, problem.ConversationNotFound},
			"nothing":                 {"ann", Draft{}, problem.BadRequest, ""},
			"empty":                   {"ann", Draft{Content: text1("")}, problem.BadRequest, ""},
			"too long":                {"ann", Draft{Content: text1(string(make([]byte, 33<<10)))}, problem.BadRequest, ""},
			"system":                  {"ann", Draft{Content: text1("x"), Type: "system"}, problem.BadRequest, ""},
			"reply to nothing":        {"ann", Draft{Content: text1("x"), ReplyToID: text1("bogus")}, problem.BadRequest, ""},
			"reply to another bucket": {"ann", Draft{Content: text1("x"), ReplyToID: text1(string(id.NewMessage(cv.ID.Bucket()+1, time.Now())))}, problem.BadRequest, ""},
			"reply to what is not":    {"ann", Draft{Content: text1("x"), ReplyToID: text1(string(id.NewMessage(cv.ID.Bucket(), time.Now())))}, problem.BadRequest, ""},
			"metadata no object":      {"ann", Draft{Content: text1("x"), Metadata: json.RawMessage(`[1]`)}, problem.BadRequest, ""},
			"a file":                  {"ann", Draft{Content: text1("x"), FileID: json.RawMessage(`"f"`)}, problem.BadRequest, ""},
		} {
			if tt.draft.ConversationID == "" {
				tt.draft.ConversationID = string(cv.ID)
			}
			_, err := n.Send(t.Context(), tt.sender, tt.draft)
			wantProblem(t, name, err, tt.code, tt.words)
		}

		var kinds []Kind
		var seqs []int64
		for _, ch := range n.handled(t, cv.ID) {
			kinds = append(kinds, ch.Kind)
			if ch.Message != nil {
				seqs = append(seqs, ch.Message.Seq)
			}
		}
		if want := []Kind{ConversationAdded, MessageNew, MessageNew, MessageNew, MessageNew}; !slices.Equal(kinds, want) || !slices.Equal(seqs, []int64{1, 2, 3, 4}) {
			t.Errorf("the feed handled %v with seqs %v", kinds, seqs)
		}
	}, Check)
}

func TestManySendersShareBatches(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		var convs []Conversation
		for i := range 5 {
			convs = append(convs, n.group(t, "ann", fmt.Sprintf("u%d", i)))
		}
		const senders, each = 8, 40
		before := db.Stats().Commits
		var wg sync.WaitGroup
		for s := range senders {
			// Pipelined: a sender does not wait for one answer before the next send.
			wg.Add(each)
			go func() {
				for i := range each {
					content := fmt.Sprintf("%d-%d", s, i)
					// Every third is sent twice at once under one client_message_id.
					copies := 1
					if i%3 == 0 {
						copies = 2
						wg.Add(1)
					}
					for range copies {
						n.SendAsync(context.Background(), "ann", Draft{ConversationID: string(convs[i%5].ID), Content: &content, ClientMessageID: content}, func(_ json.RawMessage, err error) {
							defer wg.Done()
							if err != nil {
								t.Errorf("send %s: %v", content, err)
							}
						})
					}
				}
			}()
		}
		wg.Wait()
		if commits := db.Stats().Commits - before; commits >= senders*each {
			t.Errorf("%d sends took %d commits", senders*each, commits)
		}
		for _, cv := range convs {
			last := map[string]int{}
			for _, ch := range n.handled(t, cv.ID)[1:] {
				var m Message
				if err := json.Unmarshal(ch.Row, &m); err != nil {
					t.Fatal(err)
				}
				var s, i int
				if _, err := fmt.Sscanf(*m.Content, "%d-%d", &s, &i); err != nil {
					t.Fatal(err)
				}
				sender := fmt.Sprint(s)
				if before, seen := last[sender]; seen && i <= before {
					t.Errorf("sender %d: message %d came after %d", s, i, before)
				}
				last[sender] = i
			}
		}
		total := 0
		for _, cv := range convs {
			total += len(n.handled(t, cv.ID)) - 1
		}
		if total != senders*each {
			t.Errorf("%d messages, want %d", total, senders*each)
		}
	}, Check)
}

func TestCreate(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		d1, made1, err1 := n.Create(t.Context(), "ann", NewConversation{Type: Direct, MemberIDs: []string{"bob"}})
		d2, made2, err2 := n.Create(t.Context(), "bob", NewConversation{Type: Direct, MemberIDs: []string{"ann", "bob"}})
		if err1 != nil || err2 != nil || !made1 || made2 || d1.ID != d2.ID || !slices.Equal(d2.ParticipantIDs, []id.User{"ann", "bob"}) {
			t.Errorf("a pair's direct conversation: %v %v %v, then %v %v %v", d1.ID, made1, err1, d2.ID, made2, err2)
		}
		if pairBucket, _ := id.PairBucket("bob", "ann"); d1.ID.Bucket() != pairBucket {
			t.Errorf("the direct conversation is in bucket %d, its pair in %d", d1.ID.Bucket(), pairBucket)
		}
		for name, nc := range map[string]NewConversation{
			"no type":        {MemberIDs: []string{"bob"}},
			"alone":          {Type: Direct},
			"three":          {Type: Direct, MemberIDs: []string{"bob", "cid"}},
			"a bad id":       {Type: Group, MemberIDs: []string{"b\x00b"}},
			"a long name":    {Type: Group, Name: string(make([]byte, 300))},
			"too many names": {Type: Group, MemberIDs: make([]string, 1001)},
		} {
			_, _, err := n.Create(t.Context(), "ann", nc)
			wantProblem(t, name, err, problem.BadRequest, "")
		}
		ch, _, err := n.Create(t.Context(), "ann", NewConversation{Type: Channel, MemberIDs: []string{"bob"}})
		if err != nil || ch.Role != Owner || ch.MemberCount != 2 {
			t.Errorf("channel: %+v, %v", ch, err)
		}
		_, err = n.Send(t.Context(), "bob", Draft{ConversationID: string(ch.ID), Content: text1("x")})
		wantProblem(t, "an ordinary member posts in a channel", err, problem.Forbidden, problem.UserNotAuthorized)
		n.send(t, "ann", ch.ID, "news", "")

		list, next, err := n.Conversations(t.Context(), "ann", "", 1)
		if err != nil || len(list) != 1 || list[0].ID != ch.ID || next == "" {
			t.Errorf("first page of the list: %+v, %q, %v", list, next, err)
		}
		list, next, err = n.Conversations(t.Context(), "ann", next, 1)
		if err != nil || len(list) != 1 || list[0].ID != d1.ID || next != "" {
			t.Errorf("second page of the list: %+v, %q, %v", list, next, err)
		}
		_, err = n.Conversation(t.Context(), "eve", string(ch.ID))
		wantProblem(t, "another's conversation", err, problem.NotFound, problem.ConversationNotFound)
	}, Check)
}

func TestMembers(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob")
		n.send(t, "ann", cv.ID, "before", "")

		_, err := n.AddMembers(t.Context(), "bob", string(cv.ID), []string{"cid"}, "")
		wantProblem(t, "a member adds", err, problem.Forbidden, problem.UserNotAuthorized)
		_, err = n.AddMembers(t.Context(), "eve", string(cv.ID), []string{"eve"}, "")
		wantProblem(t, "a stranger adds himself", err, problem.NotFound, problem.ConversationNotFound)
		got, err := n.AddMembers(t.Context(), "ann", string(cv.ID), []string{"cid", "bob", "dan"}, Moderator)
		if err != nil || got.MemberCount != 4 || !slices.Contains(got.ParticipantIDs, "cid") {
			t.Fatalf("AddMembers: %+v, %v", got, err)
		}
		_, err = n.RemoveMember(t.Context(), "cid", string(cv.ID), "bob")
		wantProblem(t, "a moderator removes", err, problem.Forbidden, "")
		_, err = n.RemoveMember(t.Context(), "ann", string(cv.ID), "ann")
		wantProblem(t, "the last owner leaves", err, problem.Conflict, "")
		if _, err := n.RemoveMember(t.Context(), "ann", string(cv.ID), "cid"); err != nil {
			t.Fatal(err)
		}
		_, err = n.Send(t.Context(), "cid", Draft{ConversationID: string(cv.ID), Content: text1("x")})
		wantProblem(t, "a removed member sends", err, problem.NotFound, problem.ConversationNotFound)
		_, err = n.History(t.Context(), "cid", string(cv.ID), HistoryRange{})
		wantProblem(t, "a removed member reads", err, problem.NotFound, problem.ConversationNotFound)
		if _, err := n.RemoveMember(t.Context(), "bob", string(cv.ID), "bob"); err != nil { // leaves
			t.Fatal(err)
		}
		if got, err = n.AddMembers(t.Context(), "ann", string(cv.ID), []string{"cid"}, ""); err != nil || got.MemberCount != 3 {
			t.Errorf("back again: %+v, %v", got, err)
		}
		members, next, err := n.Members(t.Context(), "ann", string(cv.ID), "", 2)
		if err != nil || len(members) != 2 || members[0].Role != Owner || members[1].UserID != "cid" || members[1].Role != Ordinary || next != "cid" {
			t.Errorf("members: %+v, %q, %v", members, next, err)
		}
		var kinds []Kind
		for _, ch := range n.handled(t, cv.ID) {
			kinds = append(kinds, ch.Kind)
		}
		want := []Kind{ConversationAdded, MessageNew, MemberAdded, MessageNew, MemberRemoved, MessageNew, MemberRemoved, MessageNew, MemberAdded, MessageNew}
		if !slices.Equal(kinds, want) {
			t.Errorf("the feed handled %v, want %v", kinds, want)
		}
		d, _, err := n.Create(t.Context(), "ann", NewConversation{Type: Direct, MemberIDs: []string{"bob"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.AddMembers(t.Context(), "ann", string(d.ID), []string{"eve"}, "")
		wantProblem(t, "a third in a direct conversation", err, problem.Conflict, "")
	}, Check)
}

func TestEditAndDelete(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann", "bob")
		m := n.send(t, "bob", cv.ID, "helo", "c1")
		got, err := n.Edit(t.Context(), "bob", string(m.ID), "hello")
		if err != nil || *got.Content != "hello" || !got.IsEdited || got.EditedAt == nil || got.Seq != m.Seq || got.Pos <= m.Pos || got.ClientMessageID != "c1" {
			t.Errorf("Edit: %+v, %v", got, err)
		}
		_, err = n.Edit(t.Context(), "ann", string(m.ID), "mine")
		wantProblem(t, "another's message edited", err, problem.Forbidden, problem.UserNotAuthorized)
		_, err = n.Edit(t.Context(), "eve", string(m.ID), "mine")
		wantProblem(t, "a stranger edits", err, problem.NotFound, "Message not found")
		_, err = n.Edit(t.Context(), "bob", string(m.ID), "")
		wantProblem(t, "edited to nothing", err, problem.BadRequest, "")
		_, err = n.Edit(t.Context(), "bob", "no-id", "x")
		wantProblem(t, "no id", err, problem.NotFound, "Message not found")
		if again := n.send(t, "bob", cv.ID, "helo", "c1"); again.ID != m.ID || *again.Content != "hello" {
			t.Errorf("a repetition of an edited message answered %+v", again)
		}

		other := n.send(t, "ann", cv.ID, "x", "")
		_, err = n.Delete(t.Context(), "bob", string(other.ID))
		wantProblem(t, "a member deletes another's", err, problem.Forbidden, "")
		gone, err := n.Delete(t.Context(), "ann", string(m.ID)) // the owner may
		if err != nil || !gone.IsDeleted || *gone.Content != DeletedContent || gone.DeletedAt == nil || gone.Seq != m.Seq || gone.SenderID != "bob" {
			t.Errorf("Delete: %+v, %v", gone, err)
		}
		if twice, err := n.Delete(t.Context(), "bob", string(m.ID)); err != nil || twice.Pos != gone.Pos {
			t.Errorf("deleted twice: %+v, %v", twice, err)
		}
		_, err = n.Edit(t.Context(), "bob", string(m.ID), "back")
		wantProblem(t, "a deleted message edited", err, problem.Conflict, "")
		if again := n.send(t, "bob", cv.ID, "helo", "c1"); again.ID != m.ID || !again.IsDeleted {
			t.Errorf("a repetition of a deleted message answered %+v", again)
		}
		page, err := n.History(t.Context(), "ann", string(cv.ID), HistoryRange{})
		if err != nil || len(page.Messages) != 1 || page.Messages[0].ID != other.ID {
			t.Errorf("history after the deletion: %+v, %v", page, err)
		}
		changes := n.handled(t, cv.ID)
		last := changes[len(changes)-1]
		if d := last.Deleted(); last.Kind != MessageDeleted || d.MessageID != m.ID || d.Seq != m.Seq || d.Pos != gone.Pos {
			t.Errorf("the last change: %+v", last)
		}
	}, Check)
}

func TestHistory(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann")
		var times []wire.Time
		for i := range 12 {
			times = append(times, n.send(t, "ann", cv.ID, fmt.Sprint(i+1), "").CreatedAt)
		}
		at := func(ms wire.Time) string { return ms.Time().Format("2006-01-02T15:04:05.000Z07:00") }
		for _, tt := range []struct {
			r          HistoryRange
			first, len int64
			prev, next string
		}{
			{HistoryRange{}, 1, 12, "", ""},
			{HistoryRange{Limit: 5}, 8, 5, "8", ""},
			{HistoryRange{Before: "8", Limit: 5}, 3, 5, "3", "7"},
			{HistoryRange{Before: "3", Limit: 5}, 1, 2, "", "2"},
			{HistoryRange{After: "0", Limit: 5}, 1, 5, "", "5"},
			{HistoryRange{After: "10", Limit: 5}, 11, 2, "11", ""},
			{HistoryRange{Around: "6", Limit: 4}, 4, 4, "4", "7"},
			{HistoryRange{Before: "1"}, 0, 0, "", ""},
			{HistoryRange{After: "12"}, 0, 0, "", ""},
			{HistoryRange{Before: at(times[0])}, 0, 0, "", ""},
			{HistoryRange{Before: at(times[11] + 1)}, 1, 12, "", ""},
			{HistoryRange{Limit: 1000}, 1, 12, "", ""},
		} {
			page, err := n.History(t.Context(), "ann", string(cv.ID), tt.r)
			if err != nil {
				t.Errorf("History(%+v): %v", tt.r, err)
				continue
			}
			var first int64
			if len(page.Messages) > 0 {
				first = page.Messages[0].Seq
			}
			if first != tt.first || int64(len(page.Messages)) != tt.len || page.Prev != tt.prev || page.Next != tt.next {
				t.Errorf("History(%+v) = %d messages from %d, prev %q next %q; want %d from %d, %q %q",
					tt.r, len(page.Messages), first, page.Prev, page.Next, tt.len, tt.first, tt.prev, tt.next)
			}
		}
		for _, r := range []HistoryRange{{Before: "x"}, {Before: "1", After: "2"}, {Around: "-1"}, {After: "9223372036854775807"}} {
			_, err := n.History(t.Context(), "ann", string(cv.ID), r)
			wantProblem(t, fmt.Sprintf("%+v", r), err, problem.BadRequest, "")
		}
	}, Check)
}

// TestModerationFails has the judge fail: by default the message goes through unflagged, and with the policy to
// refuse, only a repetition of what was accepted is answered.
func TestModerationFails(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite, Check)
	broken := false
	judge := func(_ context.Context, s string) (bool, error) {
		if broken {
			return true, errors.New("no judge")
		}
		return false, nil
	}
	open := start(t, db, Options{Judge: judge})
	closed := start(t, db, Options{Judge: judge, ModerationFailClosed: true})
	cv := open.group(t, "ann")
	first := closed.send(t, "ann", cv.ID, "judged", "c1")
	broken = true
	passed := open.send(t, "ann", cv.ID, "not judged", "")
	if _, err := open.Edit(t.Context(), "ann", string(passed.ID), "edited, not judged"); err != nil {
		t.Errorf("edit: %v", err)
	}
	_, err := closed.Send(t.Context(), "ann", Draft{ConversationID: string(cv.ID), Content: text1("x")})
	wantProblem(t, "a send that could not be judged", err, problem.Unavailable, "")
	_, err = closed.Send(t.Context(), "ann", Draft{ConversationID: string(cv.ID), Content: text1("x"), ClientMessageID: "c2"})
	wantProblem(t, "one with a client_message_id", err, problem.Unavailable, "")
	_, err = closed.Edit(t.Context(), "ann", string(first.ID), "y")
	wantProblem(t, "an edit that could not be judged", err, problem.Unavailable, "")
	if again := closed.send(t, "ann", cv.ID, "judged", "c1"); again.ID != first.ID {
		t.Errorf("a repetition answered %+v, want %+v", again, first)
	}
	page, err := open.History(t.Context(), "ann", string(cv.ID), HistoryRange{})
	if err != nil || len(page.Messages) != 2 || page.Messages[1].IsFlagged {
		t.Errorf("history: %+v, %v; want two messages, none flagged", page, err)
	}
}

// TestWorkflowIsTheTutorials holds the steps to their names and order.
func TestWorkflowIsTheTutorials(t *testing.T) {
	n := start(t, sqldbtest.Open(t, sqldb.SQLite), Options{})
	want := []string{"validate-access", "content-moderation", "create-message", "update-conversation", "create-status", "publish-message", "send-notifications"}
	if n.flow.Name != "send-message" || n.flow.Version != "1.0.0" || !slices.Equal(n.flow.Steps(), want) {
		t.Errorf("%s %s: %v", n.flow.Name, n.flow.Version, n.flow.Steps())
	}
}

// TestBatchPanics has a batch panic inside its transaction: its senders are answered, nothing is stored, and the
// next send goes through.
func TestBatchPanics(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann")
		calls := 0
		n.now = func() time.Time {
			if calls++; calls == 2 { // the first is for the message's id, outside
				panic("no time")
			}
			return time.Now()
		}
		if _, err := n.Send(t.Context(), "ann", Draft{ConversationID: string(cv.ID), Content: text1("x")}); err == nil {
			t.Error("a send whose batch panicked was accepted")
		}
		if m := n.send(t, "ann", cv.ID, "y", ""); m.Seq != 1 {
			t.Errorf("the next message has the seq %d", m.Seq)
		}
	}, Check)
}
