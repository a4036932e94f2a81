package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// seen is what a follower was given.
type seen struct {
	mu      sync.Mutex
	seqs    map[id.Conversation][]int64 // of creations
	texts   map[id.Message]string
	members int
	fail    func(Commit) error
}

func (s *seen) handle(_ context.Context, commit Commit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(commit); err != nil {
			return err
		}
	}
	if s.seqs == nil {
		s.seqs, s.texts = map[id.Conversation][]int64{}, map[id.Message]string{}
	}
	for _, ch := range commit.Changes {
		switch ch.Kind {
		case MessageNew:
			s.seqs[ch.Conversation] = append(s.seqs[ch.Conversation], ch.Message.Seq)
		case ConversationAdded, MemberAdded, MemberRemoved:
			s.members += len(ch.Members)
		}
		if ch.Message != nil {
			s.texts[ch.Message.ID] = string(ch.Row)
		}
	}
	return nil
}

// count is how many creations of a conversation came, repeated ones too.
func (s *seen) count(cid id.Conversation) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seqs[cid])
}

// first are the seqs without their repetitions.
func (s *seen) first(cid id.Conversation) (seqs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seq := range s.seqs[cid] {
		if !slices.Contains(seqs, seq) {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// wantsAll fails unless the creations came in their order and without a gap, from a seq to another.
func (s *seen) wantsAll(t testing.TB, what string, cid id.Conversation, from, to int64) {
	t.Helper()
	var want []int64
	for seq := from; seq <= to; seq++ {
		want = append(want, seq)
	}
	if got := s.first(cid); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %d to %d", what, got, from, to)
	}
}

// follow has n follow until the test ends or stop is called.
func (n *node) follow(t testing.TB, f Follower) (stop func()) {
	t.Helper()
	return n.goes(t, func(ctx context.Context) error { return n.Follow(ctx, f) })
}

// followUntilKilled is follow by a node that leaves nothing behind in order: killed ends it without a last save.
func (n *node) followUntilKilled(t testing.TB, f Follower) (w *following, killed func()) {
	t.Helper()
	w, err := n.newFollowing(f)
	if err != nil {
		t.Fatal(err)
	}
	return w, n.goes(t, func(ctx context.Context) error { w.run(ctx); return nil })
}

var quick = Options{BeatEvery: 20 * time.Millisecond, PollEvery: 50 * time.Millisecond}

func TestFollow(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, quick)
		convs := []Conversation{n.group(t, "ann", "bob"), n.group(t, "ann"), n.group(t, "ann")}
		for i := range 2 * followMax { // more than a page
			n.SendAsync(t.Context(), "ann", Draft{ConversationID: string(convs[0].ID), Content: text1(fmt.Sprint(i))}, func(_ json.RawMessage, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		edited := n.send(t, "ann", convs[1].ID, "before", "")
		if _, err := n.Edit(t.Context(), "ann", string(edited.ID), "after"); err != nil {
			t.Fatal(err)
		}
		n.send(t, "ann", convs[0].ID, "last", "")

		leaks := goleak.IgnoreCurrent()
		var all, new seen
		stopAll := n.follow(t, Follower{Name: "all", FromZero: true, Handle: all.handle})
		stopNew := n.follow(t, Follower{Name: "new", Handle: new.handle})
		eventually(t, "all of the past", func() bool { return all.count(convs[0].ID) >= 2*followMax+1 && all.count(convs[1].ID) >= 1 })
		eventually(t, "the new one has its leases", func() bool { return testutil.ToFloat64(n.metrics.followers.of("new").leases) == leases })
		n.send(t, "ann", convs[2].ID, "1", "")
		if _, err := n.Delete(t.Context(), "ann", string(edited.ID)); err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]*seen{"all": &all, "new": &new} {
			eventually(t, name+" has what is new", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.seqs[convs[2].ID]) == 1 && s.texts[edited.ID] != ""
			})
		}
		if new.count(convs[0].ID) != 0 || new.count(convs[1].ID) != 0 {
			t.Error("a follower that begins with the present was given the past")
		}
		if all.members != 4 {
			t.Errorf("%d members came, want those of three groups", all.members)
		}
		if err := n.Follow(t.Context(), Follower{Name: "all", Handle: all.handle}); !errors.Is(err, ErrFollowed) {
			t.Errorf("a second follower of the name: %v", err)
		}

		// What was handled is saved when following ends, and nothing of it comes again.
		stopAll()
		stopNew()
		goleak.VerifyNone(t, leaks)
		n.send(t, "ann", convs[0].ID, "while nobody followed", "")
		had := all.count(convs[0].ID)
		n.follow(t, Follower{Name: "all", Handle: all.handle})
		eventually(t, "it goes on", func() bool { return all.count(convs[0].ID) > had })
		all.wantsAll(t, "in the first conversation", convs[0].ID, 1, 2*followMax+2)
		if got := all.count(convs[0].ID); got != had+1 {
			t.Errorf("%d messages came after the restart, want one", got-had)
		}
		if got := testutil.ToFloat64(n.metrics.followers.of("all").handled); got < 2*followMax+6 {
			t.Errorf("%v changes are counted", got)
		}
	}, Check)
}

// TestFollowerFails has a handler fail, and panic, for one bucket.
func TestFollowerFails(t *testing.T) {
	t.Parallel() // it waits, most of the time
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, quick)
		bad, good := n.group(t, "ann"), n.group(t, "ann")
		for good.ID.Bucket() == bad.ID.Bucket() {
			good = n.group(t, "ann")
		}
		var s seen
		failures, healed := 0, false
		s.fail = func(commit Commit) error {
			if commit.Bucket != bad.ID.Bucket() || healed {
				return nil
			}
			if failures++; failures == 2 {
				panic("for the second time")
			}
			return errors.New("for a test")
		}
		n.follow(t, Follower{Name: "f", FromZero: true, Handle: s.handle})
		for i := range 20 {
			n.send(t, "ann", bad.ID, "x", "")
			n.send(t, "ann", good.ID, "x", "")
			eventually(t, "the good bucket goes on", func() bool { return s.count(good.ID) == i+1 })
		}
		eventually(t, "it is tried again, later and later", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return failures >= 3 })
		s.mu.Lock()
		if failures > 6 {
			t.Errorf("%d attempts in a few seconds", failures)
		}
		healed = true
		s.mu.Unlock()
		eventually(t, "the bad one too, in the end", func() bool { return s.count(bad.ID) == 20 })
		s.wantsAll(t, "the bad bucket", bad.ID, 1, 20)
		if got := testutil.ToFloat64(n.metrics.followers.of("f").failures); got < 3 {
			t.Errorf("%v failures are counted", got)
		}
	}, Check)
}

// TestFollowersShare has nodes come and go under a follower: the leases are shared evenly, those of a dead node move when
// its run is ended, and a node that was taken for dead cannot save any more.
func TestFollowersShare(t *testing.T) {
	t.Parallel() // it waits, most of the time
	db := sqldbtest.Open(t, sqldb.Postgres, Check)
	o := quick
	var s seen
	f := Follower{Name: "f", FromZero: true, Handle: s.handle}
	frozen, killFrozen := startKillable(t, db, o)
	w, killFollower := frozen.followUntilKilled(t, f)
	held := func(n *node) float64 { return testutil.ToFloat64(n.metrics.followers.of("f").leases) }
	eventually(t, "one has all", func() bool { return held(frozen) == leases })
	b := start(t, db, o)
	b.follow(t, f)
	eventually(t, "two have 8 each", func() bool { return held(frozen) == 8 && held(b) == 8 })
	c := start(t, db, o)
	stop := c.follow(t, f)
	eventually(t, "three have 6, 5 and 5", func() bool {
		all := []float64{held(frozen), held(b), held(c)}
		slices.Sort(all)
		return slices.Equal(all, []float64{5, 5, 6})
	})
	var convs []Conversation
	for range 40 {
		convs = append(convs, b.group(t, "ann"))
	}
	send := func() {
		t.Helper()
		for _, cv := range convs {
			b.send(t, "ann", cv.ID, "x", "")
		}
	}
	have := func(what string, n int64) {
		t.Helper()
		eventually(t, what, func() bool {
			return !slices.ContainsFunc(convs, func(cv Conversation) bool { return len(s.first(cv.ID)) < int(n) })
		})
		for _, cv := range convs {
			s.wantsAll(t, what, cv.ID, 1, n)
		}
	}
	send()
	have("with three nodes", 1)
	stop()
	eventually(t, "two have 8 each again", func() bool { return held(frozen) == 8 && held(b) == 8 })
	send()
	have("with two nodes", 2)

	killFollower()
	killFrozen()
	send()
	if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE runs SET beat_ms = beat_ms - $1 WHERE tag = $2`, silenceMax.Milliseconds(), w.own.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one has all again", func() bool { return held(b) == leases })
	have("with one node", 3)

	had := 0
	for i := range w.leases {
		if l := &w.leases[i]; l.held {
			had++
			l.moved = true
			w.buckets[bucketsOf(i)[0]].pos = 1 << 40
		}
	}
	if had != 8 {
		t.Errorf("the dead node thinks that it has %d leases, want 8", had)
	}
	if err := w.save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if n := w.held(); n != 0 {
		t.Errorf("a node that was taken for dead saved %d leases", n)
	}
	if err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
		rows, err := selectLeases(t.Context(), tx, "f")
		for _, r := range rows {
			for bucket, pos := range r.positions {
				if pos == 1<<40 {
					t.Errorf("a node that was taken for dead has saved the position of bucket %d", bucket)
				}
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestFollowerAfterLoss ends a node's run under its follower, as a failing over does: what it handled since the last save
// is not saved, and comes again.
func TestFollowerAfterLoss(t *testing.T) {
	t.Parallel() // it waits, most of the time
	db := sqldbtest.Open(t, sqldb.Postgres, Check)
	n := start(t, db, Options{BeatEvery: time.Hour, PollEvery: 50 * time.Millisecond})
	cv := n.group(t, "ann")
	var s seen
	n.follow(t, Follower{Name: "f", FromZero: true, Handle: s.handle})
	eventually(t, "it follows", func() bool { return testutil.ToFloat64(n.metrics.followers.of("f").leases) == leases })
	if err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		heads, err := selectHeads(t.Context(), tx)
		if err != nil {
			return err
		}
		_, err = endRuns(t.Context(), tx, moment{}, heads, true)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n.send(t, "ann", cv.ID, "1", "")
	eventually(t, "it is handled", func() bool { return s.count(cv.ID) == 1 })
	eventually(t, "and cannot be saved", func() bool { return testutil.ToFloat64(n.metrics.followers.of("f").leases) < leases })
	if err := n.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes again in the next run", func() bool { return s.count(cv.ID) == 2 })
}

func TestShare(t *testing.T) {
	for n := 1; n <= 20; n++ {
		var runs []string
		for i := range n {
			runs = append(runs, fmt.Sprintf("%02d", i))
		}
		sum, least, most := 0, leases, 0
		for _, own := range runs {
			k := share(runs, own)
			sum, least, most = sum+k, min(least, k), max(most, k)
		}
		if sum != leases || most-least > 1 {
			t.Errorf("%d nodes share %d leases, %d to %d each", n, sum, least, most)
		}
	}
	if n := share([]string{"a", "b"}, "c"); n != 0 {
		t.Errorf("a run that is not there gets %d", n)
	}
}

// TestFollowerToldTooMuch has a follower told of a head that the log does not reach, as after a loss: it reads once, and no more.
func TestFollowerToldTooMuch(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite)
	n := start(t, db, Options{})
	w, err := n.newFollowing(Follower{Name: "f", FromZero: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.unfollow(w)
	w.look(t.Context())
	w.told[7].Store(1 << 40)
	w.listen()
	for range 2 {
		w.begin(t.Context())
		if w.busy == 0 {
			return
		}
		w.done(<-w.results)
	}
	t.Errorf("bucket 7 is read again and again: %+v", w.buckets[7])
}
