package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func openBus(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	o.NoEcho, o.Log = true, slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestTwoNodes has two nodes of one database write to the same conversations at once: both must handle every
// change, in the same order, whether the bus carries hints or loses all of them.
func TestTwoNodes(t *testing.T) {
	for _, hints := range []bool{true, false} {
		t.Run(fmt.Sprintf("hints %v", hints), func(t *testing.T) {
			db := sqldbtest.Open(t, sqldb.Postgres, Check)
			var nodes [2]*node
			if hints {
				b := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0"})
				other := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{"nats://" + b.ClusterAddr()}})
				nodes[0] = startOn(t, db, b, Options{Shared: true})
				nodes[1] = startOn(t, db, other, Options{Shared: true})
				for deadline := time.Now().Add(10 * time.Second); b.Routes() == 0; {
					if time.Now().After(deadline) {
						t.Fatal("the buses do not find each other")
					}
					<-time.After(time.Millisecond)
				}
			} else {
				for i := range nodes {
					nodes[i] = startOn(t, db, openBus(t, bus.Options{}), Options{Shared: true, PollEvery: 50 * time.Millisecond})
				}
			}
			var convs []id.Conversation
			for range 3 {
				convs = append(convs, nodes[0].group(t, "ann", "bob").ID)
			}
			var wg sync.WaitGroup
			for i, n := range nodes {
				for w := range 3 {
					wg.Go(func() {
						for k := range 40 {
							content := fmt.Sprint(i, w, k)
							cid := convs[(k+w)%3]
							row, err := n.Send(context.Background(), "ann", Draft{ConversationID: string(cid), Content: &content, ClientMessageID: content})
							if err != nil {
								t.Errorf("send: %v", err)
								return
							}
							var m Message
							if err := json.Unmarshal(row, &m); err != nil {
								t.Error(err)
							}
							if k%10 == 3 {
								if _, err := n.Edit(context.Background(), "ann", string(m.ID), "edited"); err != nil {
									t.Errorf("edit: %v", err)
								}
							}
							if k == 20 && w == 0 {
								user := fmt.Sprint("u", i)
								if _, err := n.AddMembers(context.Background(), "ann", string(cid), []string{user}, ""); err != nil {
									t.Errorf("add: %v", err)
								}
								if _, err := n.RemoveMember(context.Background(), "ann", string(cid), user); err != nil {
									t.Errorf("remove: %v", err)
								}
							}
						}
					})
				}
			}
			wg.Wait()
			for _, cid := range convs {
				var seqs [2][]int64
				var pos [2][]int64
				for i, n := range nodes {
					for _, ch := range n.handled(t, cid) {
						if ch.Kind == MessageNew {
							seqs[i] = append(seqs[i], ch.Message.Seq)
						}
						pos[i] = append(pos[i], ch.Pos)
					}
					for k, seq := range seqs[i] {
						if seq != int64(k+1) {
							t.Fatalf("node %d handled the seqs %v", i, seqs[i])
						}
					}
					if !slices.IsSorted(pos[i]) {
						t.Errorf("node %d handled the positions %v", i, pos[i])
					}
				}
				if len(seqs[0]) != len(seqs[1]) || len(seqs[0]) < 80 {
					t.Errorf("the nodes handled %d and %d messages", len(seqs[0]), len(seqs[1]))
				}
				// The members' part: whatever was read together, the last word is that they are gone.
				for i, n := range nodes {
					last := map[id.User]bool{}
					for _, ch := range n.handled(t, cid) {
						for _, m := range ch.Members {
							last[m.UserID] = ch.Kind != MemberRemoved
						}
					}
					for user, in := range last {
						if in != (user == "ann" || user == "bob") {
							t.Errorf("node %d holds %s for a member: %v", i, user, in)
						}
					}
				}
			}
			if !hints && nodes[1].Feed.Fills() == 0 {
				t.Error("nothing was read from the log though nothing was told")
			}
		})
	}
}

// TestLostHint loses one commit out of three on the way: the node reads it when the next one shows the hole.
func TestLostHint(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		writer := start(t, db, Options{})
		cv := writer.group(t, "ann", "bob")
		reader := start(t, db, Options{PollEvery: time.Hour})
		var commits []Commit
		for i := range 3 {
			writer.send(t, "ann", cv.ID, fmt.Sprint(i), "")
		}
		writer.handled(t, cv.ID)
		writer.mu.Lock()
		commits = slices.Clone(writer.commits[len(writer.commits)-3:])
		writer.mu.Unlock()
		reader.Feed.offer(commits[0])
		reader.Feed.offer(commits[2])
		changes := reader.handled(t, cv.ID)
		if len(changes) != 3 || changes[0].Message.Seq != 1 || changes[2].Message.Seq != 3 {
			t.Errorf("handled %+v", changes)
		}
		if n := reader.Feed.Fills(); n != 1 {
			t.Errorf("the log was read %d times, want once", n)
		}
	}, Check)
}

// TestPublicSubjects hears what other programs on the same NATS hear: the tutorial's payloads.
func TestPublicSubjects(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite, Check)
	b := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0"})
	other := openBus(t, bus.Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{"nats://" + b.ClusterAddr()}})
	heard := make(chan bus.Message, 16)
	if _, err := other.Hear("chat.>", func(m bus.Message) { heard <- m }); err != nil {
		t.Fatal(err)
	}
	n := startOn(t, db, b, Options{Shared: true})
	cv := n.group(t, "ann")
	var sent Message
	var m bus.Message
	for deadline, told := time.Now().Add(10*time.Second), false; !told; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was heard")
		}
		sent = n.send(t, "ann", cv.ID, "hello", "") // until the interest has spread
		select {
		case m = <-heard:
			told = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	var payload struct {
		ConversationID id.Conversation `json:"conversation_id"`
		Message        Message         `json:"message"`
		Timestamp      time.Time       `json:"timestamp"`
	}
	if err := json.Unmarshal(m.Data, &payload); err != nil || m.Subject != "chat.message.new" || payload.ConversationID != cv.ID ||
		*payload.Message.Content != "hello" || payload.Timestamp.IsZero() {
		t.Errorf("heard %s %s, %v", m.Subject, m.Data, err)
	}
	if _, err := n.Edit(t.Context(), "ann", string(sent.ID), "edited"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Delete(t.Context(), "ann", string(sent.ID)); err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for !slices.Contains(subjects, "chat.message.deleted") {
		select {
		case m = <-heard:
			subjects = append(subjects, m.Subject)
		case <-time.After(10 * time.Second):
			t.Fatalf("heard %v", subjects)
		}
	}
	if !slices.Contains(subjects, "chat.message.updated") {
		t.Errorf("heard %v", subjects)
	}
}

// TestReadLogTellsChanges has messages made and changed in one page of the log: their change is told too, for those who have
// got the message already.
func TestReadLogTellsChanges(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		cv := n.group(t, "ann")
		first := n.send(t, "ann", cv.ID, "first", "")
		edited, deleted := n.send(t, "ann", cv.ID, "a", ""), n.send(t, "ann", cv.ID, "b", "")
		for _, change := range []func() error{
			func() error { _, err := n.Edit(t.Context(), "ann", string(first.ID), "first, edited"); return err },
			func() error { _, err := n.Edit(t.Context(), "ann", string(edited.ID), "a, edited"); return err },
			func() error { _, err := n.Delete(t.Context(), "ann", string(deleted.ID)); return err },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
		page, err := n.readLog(t.Context(), cv.ID.Bucket(), first.Pos, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, ch := range page.Changes {
			got = append(got, fmt.Sprint(ch.Kind, " ", ch.Message.Seq, " at ", ch.Pos-first.Pos))
		}
		want := []string{"message-new 2 at 1", "message-new 3 at 2", "message-updated 1 at 3", "message-updated 2 at 4", "message-deleted 3 at 5"}
		if !slices.Equal(got, want) {
			t.Errorf("the page has %q, want %q", got, want)
		}
	}, Check)
}
