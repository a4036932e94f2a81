package chat

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// twoNodes are two nodes of one database that sleep on what nobody wants, and hear each other or do not.
func twoNodes(t *testing.T, connected bool, o Options) (nodes [2]*node, buses [2]*bus.Bus) {
	t.Helper()
	db := sqldbtest.Open(t, sqldb.Postgres, Check)
	o.Shared = true
	first, second := bus.Options{}, bus.Options{}
	if connected {
		first.ClusterListen, second.ClusterListen = "127.0.0.1:0", "127.0.0.1:0"
	}
	buses[0] = openBus(t, first)
	if connected {
		second.ClusterRoutes = []string{"nats://" + buses[0].ClusterAddr()}
	}
	buses[1] = openBus(t, second)
	if connected {
		eventually(t, "the buses find each other", func() bool { return buses[0].Routes() > 0 && buses[1].Routes() > 0 })
	}
	for i, b := range buses {
		nodes[i] = startOn(t, db, b, o)
	}
	if connected {
		reaches(t, buses)
	}
	return nodes, buses
}

// reaches waits until each bus has heard what the other one told before: what is told on a route stays in order.
func reaches(t *testing.T, buses [2]*bus.Bus) {
	t.Helper()
	for i := range buses {
		there := make(chan struct{}, 1)
		heard, err := buses[1-i].Hear("test.barrier", func(bus.Message) {
			select {
			case there <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "one bus hears the other", func() bool {
			if err := buses[i].Tell("test.barrier", nil); err != nil {
				t.Fatal(err)
			}
			select {
			case <-there:
				return true
			case <-time.After(5 * time.Millisecond):
				return false
			}
		})
		heard.Unsubscribe()
	}
}

func (n *node) come(u id.User) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.users == nil {
		n.users = map[id.User]bool{}
	}
	n.users[u] = true
}

// texts are what the node was told of a conversation: the contents of new messages, and the kinds of the rest.
func (n *node) texts(cid id.Conversation) (texts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.commits {
		for _, ch := range c.Changes {
			switch {
			case ch.Conversation != cid:
			case ch.Kind == MessageNew:
				texts = append(texts, contentOf(ch))
			default:
				texts = append(texts, string(ch.Kind))
			}
		}
	}
	return texts
}

func contentOf(ch Change) string {
	_, rest, _ := strings.Cut(string(ch.Row), `"content":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

func (n *node) wantTexts(t *testing.T, cid id.Conversation, within time.Duration, want ...string) {
	t.Helper()
	began := time.Now()
	eventually(t, fmt.Sprint("it is told ", want), func() bool { return len(n.texts(cid)) >= len(want) })
	if took := time.Since(began); took > within {
		t.Errorf("it took %v, of at most %v", took, within)
	}
	if got := n.texts(cid); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestNobodyHears writes at one node while nobody is at the other: nothing of it is heard there.
func TestNobodyHears(t *testing.T) {
	nodes, buses := twoNodes(t, true, Options{SleepAfter: time.Hour})
	here, there := nodes[0], nodes[1]
	for range 8 {
		cv := here.group(t, "ann", "bob")
		for i := range 10 {
			here.send(t, "ann", cv.ID, fmt.Sprint(i), "")
		}
	}
	reaches(t, buses)
	if heard, awake := there.Feed.heard.Load(), there.Feed.awakened(); heard != 0 || awake != 0 {
		t.Errorf("where nobody is %d commits were heard, and %d lanes are awake", heard, awake)
	}
	if told := buses[0].Stats().Told; told < 80 {
		t.Errorf("only %d messages were told", told)
	}
	if ignored := here.Feed.ignored.Load(); ignored < 80 {
		t.Errorf("the node that wrote them ignored %d of its own commits", ignored)
	}
	// One bucket is wanted: that alone is heard.
	cv := here.group(t, "ann", "bob")
	there.Feed.Keep(cv.ID.Bucket(), 1)
	eventually(t, "the lane wakes", func() bool { return there.awakeAt(cv.ID.Bucket()) })
	eventually(t, "what is sent is heard", func() bool {
		here.send(t, "ann", cv.ID, "x", "")
		return there.Feed.heard.Load() > 0
	})
	if awake := there.Feed.awakened(); awake != 1 {
		t.Errorf("%d lanes are awake, for one bucket", awake)
	}
}

func (n *node) awakeAt(b id.Bucket) bool {
	l := &n.Feed.lanes[b]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == awake && l.heard != nil
}

// TestAddedWhileAsleep adds a user who is at one node to conversations, at the other one and at his own, in buckets
// that his node sleeps on: it is told at once, and if the hint is lost with the next poll.
func TestAddedWhileAsleep(t *testing.T) {
	for _, test := range []struct {
		name      string
		connected bool
		poll      time.Duration
	}{{"hints arrive", true, time.Hour}, {"hints are lost", false, 300 * time.Millisecond}} {
		t.Run(test.name, func(t *testing.T) {
			nodes, _ := twoNodes(t, test.connected, Options{SleepAfter: time.Hour, PollEvery: test.poll})
			nodes[0].come("bob")
			within := 2 * time.Second // without a poll
			if !test.connected {
				within = 10 * time.Second
			}
			for i, writer := range []*node{nodes[1], nodes[0]} {
				for range 4 {
					cv := writer.group(t, "ann", "eve")
					writer.send(t, "ann", cv.ID, "before", "")
					if nodes[0].awakeAt(cv.ID.Bucket()) {
						continue // by another of these
					}
					if _, err := writer.AddMembers(t.Context(), "ann", string(cv.ID), []string{"bob"}, ""); err != nil {
						t.Fatal(err)
					}
					writer.send(t, "ann", cv.ID, "after", "")
					began := time.Now()
					eventually(t, "bob is told", func() bool { return slices.Contains(nodes[0].texts(cv.ID), "after") })
					if took := time.Since(began); took > within {
						t.Errorf("writer %d: it took %v", i, took)
					}
					got := nodes[0].texts(cv.ID)
					added := slices.Index(got, string(MemberAdded))
					if added < 0 || !slices.Equal(got[added+1:], []string{"", "after"}) { // a system message has no content
						t.Errorf("writer %d: told %q", i, got)
					}
				}
				cv := writer.group(t, "ann", "bob")
				writer.send(t, "ann", cv.ID, "first", "")
				nodes[0].wantTexts(t, cv.ID, within, string(ConversationAdded), "first")
			}
			if n := nodes[1].Feed.awakened(); n != 0 {
				t.Errorf("%d lanes are awake where nobody is", n)
			}
		})
	}
}

// TestAddedByOwnNode has one node alone, on either engine, add a user who is there.
func TestAddedByOwnNode(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := startOn(t, db, openBus(t, bus.Options{}), Options{Shared: true, SleepAfter: time.Hour, PollEvery: time.Hour})
		n.come("bob")
		for range 8 {
			cv := n.group(t, "ann", "bob")
			n.send(t, "ann", cv.ID, "hello", "")
			n.wantTexts(t, cv.ID, 2*time.Second, string(ConversationAdded), "hello")
		}
		if awake := n.Feed.awakened(); awake == 0 || awake > 8 {
			t.Errorf("%d lanes are awake, for 8 conversations", awake)
		}
	}, Check)
}

// TestFollowerKeeps has a follower at one of two nodes: it is told at once of what the other one commits, and when it ends
// nothing is heard for it any more.
func TestFollowerKeeps(t *testing.T) {
	nodes, _ := twoNodes(t, true, Options{SleepAfter: time.Millisecond, PollEvery: 20 * time.Millisecond, BeatEvery: time.Hour})
	ctx, end := context.WithCancel(t.Context())
	handled := make(chan string, 64)
	ended := make(chan error, 1)
	go func() {
		ended <- nodes[0].Follow(ctx, Follower{Name: "f", Handle: func(_ context.Context, c Commit) error {
			for _, ch := range c.Changes {
				handled <- contentOf(ch)
			}
			return nil
		}})
	}()
	eventually(t, "all lanes wake", func() bool {
		for b := range id.Buckets {
			if !nodes[0].awakeAt(id.Bucket(b)) {
				return false
			}
		}
		return true
	})
	cv := nodes[1].group(t, "ann", "bob")
	nodes[1].send(t, "ann", cv.ID, "hello", "")
	for text := ""; text != "hello"; {
		select {
		case text = <-handled:
		case <-time.After(10 * time.Second):
			t.Fatal("the follower is not told")
		}
	}
	end()
	<-ended
	eventually(t, "all lanes sleep", func() bool { return nodes[0].Feed.awakened() == 0 })
}

// TestSleepAndWake has somebody come and go at one node all the time, while both write: from the position that he is
// given until he goes there is everything, once and in order.
func TestSleepAndWake(t *testing.T) {
	for _, connected := range []bool{true, false} {
		t.Run(fmt.Sprint("connected ", connected), func(t *testing.T) {
			nodes, _ := twoNodes(t, connected, Options{SleepAfter: time.Millisecond, PollEvery: 20 * time.Millisecond})
			n := nodes[0]
			cv := n.group(t, "ann", "bob")
			b := cv.ID.Bucket()
			var writing sync.WaitGroup
			done, stop := context.WithCancel(t.Context())
			for i, w := range nodes {
				writing.Go(func() {
					for k := 0; done.Err() == nil; k++ {
						text := fmt.Sprint(i, ".", k)
						if _, err := w.Send(context.Background(), "ann", Draft{ConversationID: string(cv.ID), Content: &text}); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			const visits = 12
			for range visits {
				eventually(t, "the lane sleeps", func() bool { return !n.awakeAt(b) })
				came, left := make(chan int64, 1), make(chan int64, 1)
				first := 0
				n.Feed.At(b, func(applied int64) {
					n.Feed.Keep(b, 1)
					n.mu.Lock()
					first = len(n.commits)
					n.mu.Unlock()
					came <- applied
				})
				from := <-came
				eventually(t, "some are handled", func() bool { return n.Feed.Applied(b) >= from+20 })
				n.Feed.At(b, func(applied int64) {
					n.Feed.Keep(b, -1)
					left <- applied
				})
				to := <-left
				n.mu.Lock()
				at := from
				for _, c := range n.commits[first:] {
					if c.Bucket == b && c.Pos <= to {
						if c.Prev != at {
							t.Errorf("behind %d came %d to %d", at, c.Prev, c.Pos)
						}
						at = c.Pos
					}
				}
				if at != to {
					t.Errorf("from %d on %d were handled, of %d", from, at, to)
				}
				n.mu.Unlock()
			}
			stop()
			writing.Wait()
			eventually(t, "all is known of", func() bool {
				heads, err := n.readHeads(t.Context())
				return err == nil && n.Feed.handled(heads) && nodes[1].Feed.handled(heads)
			})
			if fills := n.Feed.Fills(); !connected && fills == 0 {
				t.Error("nothing was read from the log though nothing was told")
			}
		})
	}
}

// TestLanesAloneStayAwake polls where there are no other nodes: nobody keeps the lanes, and they must not sleep.
func TestLanesAloneStayAwake(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite)
	n := start(t, db, Options{PollEvery: time.Millisecond, SleepAfter: time.Nanosecond})
	reads := db.Stats().Reads
	eventually(t, "it polls", func() bool { return db.Stats().Reads > reads+5 })
	if awake := n.Feed.awakened(); awake != id.Buckets {
		t.Errorf("%d lanes are awake, want %d", awake, id.Buckets)
	}
	cv := n.group(t, "ann")
	n.send(t, "ann", cv.ID, "x", "")
	eventually(t, "both commits are handled", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.commits) == 2
	})
}
