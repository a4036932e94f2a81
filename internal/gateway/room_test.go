package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"parley/internal/chat"
	"parley/internal/id"
)

// world is the log of a few buckets, as SQL would have it, and the lanes of one node, which lag behind it.
type world struct {
	h       *hub
	convs   []id.Conversation
	log     map[id.Bucket][]chat.Change
	members map[id.Conversation]map[id.User]chat.Member // the rows, as committed
	lanes   map[id.Bucket][]func()
	applied map[id.Bucket]int64
	kept    map[id.Bucket]int
}

func newWorld() *world {
	w := &world{
		h:   &hub{users: map[id.User]*user{}, complete: time.Now, offsets: true},
		log: map[id.Bucket][]chat.Change{}, members: map[id.Conversation]map[id.User]chat.Member{},
		lanes: map[id.Bucket][]func(){}, applied: map[id.Bucket]int64{}, kept: map[id.Bucket]int{},
	}
	w.h.keep = func(b id.Bucket, delta int) { w.kept[b] += delta }
	for i, b := range []id.Bucket{3, 3, 7, 200} {
		c := id.Conversation(fmt.Sprintf("00000000-0000-7%02x0-8000-00000000000%d", b, i))
		if c.Bucket() != b {
			panic(c)
		}
		w.convs = append(w.convs, c)
		w.members[c] = map[id.User]chat.Member{}
	}
	w.h.at = func(b id.Bucket, do func(int64)) bool {
		w.lanes[b] = append(w.lanes[b], func() { do(w.applied[b]) })
		return true
	}
	return w
}

// commit writes a change to the log at once; the lane applies it later.
func (w *world) commit(ch chat.Change) {
	b := ch.Conversation.Bucket()
	ch.Pos = int64(len(w.log[b])) + 1
	for i, m := range ch.Members {
		m.ChangedPos = ch.Pos
		if m.Active {
			m.JoinedPos = ch.Pos
		}
		w.members[ch.Conversation][m.UserID] = m
		ch.Members[i] = m
	}
	w.log[b] = append(w.log[b], ch)
	w.lanes[b] = append(w.lanes[b], func() {
		w.h.apply(chat.Commit{Bucket: b, Prev: ch.Pos - 1, Pos: ch.Pos, Changes: []chat.Change{ch}})
		w.applied[b] = ch.Pos
	})
}

func (w *world) step(b id.Bucket) {
	if lane := w.lanes[b]; len(lane) > 0 {
		w.lanes[b] = lane[1:]
		lane[0]()
	}
}

// memberships is what the database says at this moment, in the order of buckets.
func (w *world) memberships(u id.User) (ms []chat.Membership) {
	for _, c := range w.convs {
		if m, ok := w.members[c][u]; ok {
			ms = append(ms, chat.Membership{Conversation: c, Member: m})
		}
	}
	slices.SortFunc(ms, func(a, b chat.Membership) int { return int(a.Conversation.Bucket()) - int(b.Conversation.Bucket()) })
	return ms
}

// due are the positions of a bucket whose changes u is to be told when he is told everything behind from: those of
// conversations that he is a member of there, and the end of a membership itself. Those of a conversation that he came back
// to behind from, as the memberships say that his sign-in read, may be left out before he did; but for the end.
func (w *world) due(u id.User, ms []chat.Membership, b id.Bucket, from int64) (must, may map[int64]bool) {
	must, may = map[int64]bool{}, map[int64]bool{}
	in := map[id.Conversation]bool{}
	back := map[id.Conversation]int64{}
	for _, m := range ms {
		back[m.Conversation] = m.Member.JoinedPos
	}
	for _, ch := range w.log[b] {
		was, own := in[ch.Conversation], false
		for _, m := range ch.Members {
			if m.UserID == u {
				in[ch.Conversation], own = m.Active, true
			}
		}
		switch {
		case ch.Pos <= from || !in[ch.Conversation] && !was:
		case back[ch.Conversation] > from && ch.Pos < back[ch.Conversation] && !own:
			may[ch.Pos] = true
		default:
			must[ch.Pos] = true
		}
	}
	return must, may
}

// client is a session under test, and what it was told live.
type client struct {
	s    *session
	u    *user
	ms   []chat.Membership
	from chat.Positions

	read, joined bool

	got map[id.Bucket][]int64
}

func (c *client) take(e event) error {
	// A member's own change may be told in two events at one position (removed, and member-removed).
	if got := c.got[e.bucket]; len(got) == 0 || got[len(got)-1] != e.pos {
		c.got[e.bucket] = append(c.got[e.bucket], e.pos)
	}
	return nil
}

func (c *client) Sent() (sent, confirmed uint64) { return 0, 0 }

func (c *client) Ping() {}

// TestJoin lets sessions sign in, go live and end while messages are sent and memberships begin and end, with
// the node's lanes behind the log by any amount, and every step of a sign-in at any moment. A session must be
// told what lies behind the positions that its sign-in gave it: all of it that concerns its user, nothing
// else, in order, each position once.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		names := []id.User{"ann", "bob"}
		var clients []*client
		check := func(c *client) {
			c.s.mu.Lock()
			isLive := c.s.phase == live
			c.s.mu.Unlock()
			if !isLive {
				if len(c.got) > 0 {
					t.Fatalf("a session that is not live was told %v", c.got)
				}
				return
			}
			for b := range w.log {
				must, may := w.due(c.u.id, c.ms, b, c.from[b])
				var want []int64
				for pos := c.from[b] + 1; pos <= w.applied[b]; pos++ {
					if must[pos] || may[pos] && slices.Contains(c.got[b], pos) {
						want = append(want, pos)
					}
				}
				if !slices.Equal(c.got[b], want) {
					t.Fatalf("%s in bucket %d from %d on was told %v, want %v", c.u.id, b, c.from[b], c.got[b], want)
				}
			}
		}
		row := json.RawMessage(`{}`)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "user")
			cid := rapid.SampledFrom(w.convs).Draw(t, "conversation")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1: // somebody sends
				w.commit(chat.Change{Kind: chat.MessageNew, Conversation: cid, Row: row, Message: &chat.MessageRef{SenderID: "eve"}})
			case 2: // a membership begins or ends
				m := w.members[cid][name]
				m.UserID, m.Active = name, !m.Active
				kind := chat.MemberRemoved
				if m.Active {
					kind = chat.MemberAdded
				}
				w.commit(chat.Change{Kind: kind, Conversation: cid, Row: row, Members: []chat.Member{m}})
			case 3: // a socket begins to sign in
				c := &client{got: map[id.Bucket][]int64{}}
				c.s = &session{out: c, phase: joining}
				c.u = w.h.attach(name, c.s, 0)
				clients = append(clients, c)
			case 4: // one reads its memberships, or joins with what it read
				for _, c := range clients {
					if c.u.id != name || c.joined {
						continue
					}
					if c.read {
						c.joined = true
						w.h.join(c.u, c.ms, func(from chat.Positions) { c.from = from })
					} else {
						c.ms, c.read = w.memberships(name), true
					}
					break
				}
			case 5: // one has been brought up to its positions
				for _, c := range clients {
					if c.from != nil && c.s.phase == joining {
						c.s.release(c.from)
						break
					}
				}
			case 6: // one ends
				if rapid.IntRange(0, 3).Draw(t, "end") == 0 {
					for i, c := range clients {
						if c.from != nil && c.u.id == name {
							check(c)
							c.s.mu.Lock()
							c.s.phase = ended
							c.s.mu.Unlock()
							w.h.detach(c.u, c.s)
							clients = slices.Delete(clients, i, i+1)
							break
						}
					}
				}
			default:
				w.step(cid.Bucket())
			}
			for _, c := range clients {
				check(c)
			}
			for b, rooms := range w.h.rooms {
				if kept := w.kept[id.Bucket(b)]; kept != min(len(rooms), 1) {
					t.Fatalf("bucket %d is kept %d times for %d rooms", b, kept, len(rooms))
				}
			}
		}
		// All come to rest: everybody is live and told everything.
		for _, c := range clients {
			if !c.read {
				c.ms = w.memberships(c.u.id)
			}
			if !c.joined {
				w.h.join(c.u, c.ms, func(from chat.Positions) { c.from = from })
			}
		}
		for b := range w.lanes {
			for len(w.lanes[b]) > 0 {
				w.step(b)
			}
		}
		for _, c := range clients {
			c.s.release(c.from)
			check(c)
		}
		for _, c := range clients {
			w.h.detach(c.u, c.s)
		}
		for b := range w.lanes {
			for len(w.lanes[b]) > 0 {
				w.step(b)
			}
			if n := len(w.h.rooms[b]); n != 0 {
				t.Fatalf("%d rooms are left with nobody here", n)
			}
			if w.kept[b] != 0 {
				t.Fatalf("bucket %d is kept %d times for no room", b, w.kept[b])
			}
		}
		if len(w.h.users) != 0 {
			t.Fatalf("%d users are left", len(w.h.users))
		}
	})
}

// TestReturning has a removal and the return read from SQL as one page, which shows the return alone: he is told nothing
// that stands before it, and conversation-added before all else.
func TestReturning(t *testing.T) {
	w := newWorld()
	c := w.convs[0]
	b := c.Bucket()
	names := map[id.User]*[]int64{}
	for _, name := range []id.User{"ann", "bob"} {
		got := &[]int64{}
		names[name] = got
		s := &session{phase: live, out: sinkFunc(func(e event) { *got = append(*got, e.pos) })}
		s.user = w.h.attach(name, s, 0)
		w.h.enter(b, c, s.user)
	}
	message := func(pos int64) chat.Change {
		return chat.Change{Kind: chat.MessageNew, Pos: pos, Conversation: c, Message: &chat.MessageRef{SenderID: "ann"}, Row: []byte(`{"x":1}`)}
	}
	w.h.apply(chat.Commit{Bucket: b, Prev: 9, Pos: 13, Changes: []chat.Change{
		message(11), // bob had been removed at 10
		{Kind: chat.MemberAdded, Pos: 12, Conversation: c, Members: []chat.Member{{UserID: "bob", Role: chat.Ordinary, Active: true}}, Row: []byte(`{"x":1}`)},
		message(13),
	}})
	if got, want := fmt.Sprint(*names["bob"]), "[12 13]"; got != want {
		t.Errorf("bob, who came back, was told positions %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(*names["ann"]), "[11 12 13]"; got != want {
		t.Errorf("ann was told positions %s, want %s", got, want)
	}
}

// TestFloor has a session come from a node that was ahead of this one: what its cursor covers is not told again.
func TestFloor(t *testing.T) {
	var got []int64
	s := &session{phase: live, floor: chat.Positions{3: 5}, out: sinkFunc(func(e event) { got = append(got, e.pos) })}
	for _, e := range []event{{bucket: 3, pos: 4}, {bucket: 7, pos: 1}, {bucket: 3, pos: 5}, {bucket: 3, pos: 6}} {
		e.durable, e.packet = true, packetFor("x", struct{}{})
		s.deliver(e)
	}
	if !slices.Equal(got, []int64{1, 6}) {
		t.Errorf("told positions %v, want 1 and 6", got)
	}
}

type sinkFunc func(event)

func (f sinkFunc) take(e event) error {
	f(e)
	return nil
}

func (f sinkFunc) Sent() (sent, confirmed uint64) { return 0, 0 }

func (f sinkFunc) Ping() {}
