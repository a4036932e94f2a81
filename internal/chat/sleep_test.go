package chat

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"parley/internal/bus"
	"parley/internal/id"
)

// sleeper is one lane, the log as SQL has it, and what is on its way.
type sleeper struct {
	t *rapid.T
	f *Feed
	b id.Bucket

	log    []id.User // at position i+1 a membership of this user changed, or something else
	told   []Commit
	hinted []membersHint
	before int64 // the head of the last poll

	mu      sync.Mutex // over what the lane's goroutine writes
	applied int64
	seen    map[int64]bool
	kept    int
	here    map[id.User]int64
}

// handle is what the lane does. While somebody keeps it there is no gap.
func (s *sleeper) handle(c Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Prev < s.applied || s.kept > 0 && c.Prev != s.applied {
		s.t.Errorf("handled %d to %d behind %d, kept %d times", c.Prev, c.Pos, s.applied, s.kept)
	}
	for _, ch := range c.Changes {
		if ch.Pos <= c.Prev || ch.Pos > c.Pos || s.seen[ch.Pos] {
			s.t.Errorf("handled a change at %d with those from %d to %d, seen %v", ch.Pos, c.Prev, c.Pos, s.seen[ch.Pos])
		}
		s.seen[ch.Pos] = true
	}
	s.applied = c.Pos
}

func (s *sleeper) head() int64 { return int64(len(s.log)) }

// read is the log behind n, as one commit.
func (s *sleeper) read(n int64) Commit {
	c := Commit{Bucket: s.b, Prev: n, Pos: s.head()}
	for pos := n + 1; pos <= s.head(); pos++ {
		c.Changes = append(c.Changes, Change{Pos: pos, Members: []Member{{UserID: s.log[pos-1]}}})
	}
	return c
}

// look is lookBehind.
func (s *sleeper) look(places Positions) (heads Positions, concerned map[id.Bucket]bool) {
	concerned = map[id.Bucket]bool{}
	if place, ok := places[s.b]; ok {
		concerned[s.b] = slices.ContainsFunc(s.log[min(place, s.head()):], s.present)
	}
	return Positions{s.b: s.head()}, concerned
}

func (s *sleeper) present(u id.User) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.here[u]
	return ok
}

// fill reads the log where the lane is behind.
func (s *sleeper) fill() {
	l := &s.f.lanes[s.b]
	l.mu.Lock()
	state, applied := l.state, l.order.applied
	l.mu.Unlock()
	_, hole := s.f.holes(time.Now().Add(time.Hour))[s.b]
	if state == awake && (hole || applied < s.before) {
		s.f.offer(s.read(applied))
	}
	s.before = s.head()
}

// wakeRead is the middle of a waking round: what is read of the log.
func (s *sleeper) wakeRead(places Positions) (heads Positions, read map[id.Bucket]Commit) {
	heads, concerned := s.look(places)
	read = map[id.Bucket]Commit{}
	for b := range concerned {
		if concerned[b] {
			read[b] = s.read(places[b])
		}
	}
	return heads, read
}

// TestLaneSleeps lets a lane wake and sleep while commits and hints come late, twice or never, and every read of the
// log takes a while. Each position is handled at most once and in order; none is left out while somebody keeps the lane, nor any
// that concerns a user who was here when it was committed.
func TestLaneSleeps(t *testing.T) {
	hints := openBus(t, bus.Options{})
	users := []id.User{"ann", "bob", "eve"}
	rapid.Check(t, func(t *rapid.T) {
		s := &sleeper{t: t, b: 5, seen: map[int64]bool{}, here: map[id.User]int64{}}
		s.f = &Feed{
			handle: s.handle, present: s.present, skipped: func(_ id.Bucket, head int64) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.applied = head
			},
			log: slog.New(slog.DiscardHandler), roused: make(chan struct{}, 1), sleepAfter: time.Minute,
			listen: func(b id.Bucket) *bus.Subscription {
				heard, err := hints.Hear(logSubject(b), func(bus.Message) {})
				if err != nil {
					t.Fatal(err)
				}
				return heard
			},
		}
		defer s.f.stop()
		s.f.start(Positions{s.b: 0}, asleep)
		l := &s.f.lanes[s.b]
		var polled, waking func() // the second halves of what is under way
		steps := map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				user := rapid.SampledFrom([]id.User{"", "", "", "ann", "bob", "eve"}).Draw(t, "user")
				s.log = append(s.log, user)
				c := s.read(s.head() - 1)
				s.told = append(s.told, c)
				if user != "" {
					s.hinted = append(s.hinted, membersHint{s.b, c.Pos, []id.User{user}})
				}
			},
			"a commit arrives, or does not": func(t *rapid.T) {
				if len(s.told) == 0 {
					return
				}
				i := rapid.IntRange(0, len(s.told)-1).Draw(t, "which")
				local := rapid.Bool().Draw(t, "local")
				l.mu.Lock()
				hears := l.heard != nil
				l.mu.Unlock()
				if local || hears {
					s.f.offer(s.told[i])
				}
				if rapid.IntRange(0, 3).Draw(t, "once") > 0 {
					s.told = slices.Delete(s.told, i, i+1)
				}
			},
			"a hint arrives, or does not": func(t *rapid.T) {
				if len(s.hinted) == 0 {
					return
				}
				i := rapid.IntRange(0, len(s.hinted)-1).Draw(t, "which")
				if rapid.Bool().Draw(t, "arrives") {
					s.f.members(s.hinted[i])
				}
				if rapid.IntRange(0, 3).Draw(t, "once") > 0 {
					s.hinted = slices.Delete(s.hinted, i, i+1)
				}
			},
			"come or go": func(t *rapid.T) {
				user := rapid.SampledFrom(users).Draw(t, "user")
				s.mu.Lock()
				defer s.mu.Unlock()
				if _, ok := s.here[user]; ok {
					delete(s.here, user)
				} else {
					s.here[user] = s.head()
				}
			},
			"enter": func(*rapid.T) {
				s.f.At(s.b, func(applied int64) {
					s.mu.Lock()
					if applied != s.applied {
						t.Errorf("it runs at %d, the lane is at %d", applied, s.applied)
					}
					s.kept++
					s.mu.Unlock()
					s.f.Keep(s.b, 1)
				})
			},
			"leave": func(*rapid.T) {
				s.f.At(s.b, func(int64) {
					s.mu.Lock()
					leaves := s.kept > 0
					if leaves {
						s.kept--
					}
					s.mu.Unlock()
					if leaves {
						s.f.Keep(s.b, -1)
					}
				})
			},
			"sleep": func(*rapid.T) { s.f.drowse(time.Now().Add(time.Hour)) },
			"poll": func(*rapid.T) {
				if polled != nil {
					polled()
					polled = nil
					return
				}
				places, restarts := s.f.sleeping()
				heads, concerned := s.look(places)
				polled = func() { s.f.settle(places, restarts, heads, concerned); s.fill() }
			},
			"wake": func(*rapid.T) {
				if waking != nil {
					waking()
					waking = nil
					return
				}
				places := s.f.wakings()
				heads, read := s.wakeRead(places)
				waking = func() { s.f.wake(places, heads, read) }
			},
			"": func(t *rapid.T) { // the lane comes to rest between steps
				s.f.work.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				if applied := s.f.Applied(s.b); applied < s.applied || applied > s.head() {
					t.Fatalf("applied is %d, handled were %d of %d", applied, s.applied, s.head())
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				if s.kept > 0 && l.state != awake || l.keepers != s.kept {
					t.Fatalf("kept %d times, counted %d, state %d", s.kept, l.keepers, l.state)
				}
				if l.state == asleep && l.heard != nil {
					t.Fatal("it hears in its sleep")
				}
				s.applied = max(s.applied, s.f.Applied(s.b)) // asleep it goes on without a word
			},
		}
		t.Repeat(steps)
		for _, half := range []func(){polled, waking} {
			if half != nil {
				half()
			}
		}
		for range 3 { // all that is told from now on is lost
			places, restarts := s.f.sleeping()
			heads, concerned := s.look(places)
			s.f.settle(places, restarts, heads, concerned)
			places = s.f.wakings()
			heads, read := s.wakeRead(places)
			s.f.wake(places, heads, read)
			s.fill()
			s.f.work.Wait()
		}
		if applied := s.f.Applied(s.b); applied != s.head() {
			t.Fatalf("in the end applied is %d of %d", applied, s.head())
		}
		for i, user := range s.log {
			since, ok := s.here[user]
			if pos := int64(i + 1); ok && pos > since && !s.seen[pos] {
				t.Fatalf("%s, who has been here since %d, is not told of position %d", user, since, pos)
			}
		}
	})
}

// lanesAsleep are a Feed whose lanes all sleep at 7, and what lane 5 does: the positions handled, and negative those at
// which something ran.
func lanesAsleep(t *testing.T) (f *Feed, did func() []int64) {
	var mu sync.Mutex
	var done []int64
	note := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, n)
	}
	f = &Feed{
		log: slog.New(slog.DiscardHandler), roused: make(chan struct{}, 1), sleepAfter: time.Minute,
		handle: func(c Commit) { note(c.Pos) }, present: func(id.User) bool { return true },
		skipped: func(id.Bucket, int64) {}, listen: func(id.Bucket) *bus.Subscription { return nil },
	}
	heads := Positions{}
	for b := range id.Buckets {
		heads[id.Bucket(b)] = 7
	}
	f.start(heads, asleep)
	if !f.At(5, func(applied int64) { note(-applied) }) {
		t.Fatal("the Feed has stopped")
	}
	return f, func() []int64 {
		f.work.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(done)
	}
}

// TestWakeOrder has things told while a lane wakes: what lies before the head that was read is left out, or if it concerns
// somebody handled before all else; what lies behind needs no further read.
func TestWakeOrder(t *testing.T) {
	for _, test := range []struct {
		read map[id.Bucket]Commit
		want []int64
	}{
		{nil, []int64{-9, 10, 11}},
		{map[id.Bucket]Commit{5: {Bucket: 5, Prev: 7, Pos: 9}}, []int64{9, -9, 10, 11}},
	} {
		f, did := lanesAsleep(t)
		places := f.wakings()
		if len(places) != 1 || places[5] != 7 {
			t.Fatalf("waking are %v", places)
		}
		for _, pos := range []int64{11, 9, 10, 8} {
			f.offer(Commit{Bucket: 5, Prev: pos - 1, Pos: pos})
			f.offer(Commit{Bucket: 6, Prev: pos - 1, Pos: pos})
		}
		f.expect(5, 11)
		if got := did(); len(got) > 0 {
			t.Fatalf("before it was awake it did %v", got)
		}
		if woken := f.wake(places, Positions{5: 9, 6: 9}, test.read); !slices.Equal(woken, []id.Bucket{5}) {
			t.Errorf("woken are %v", woken)
		}
		if got := did(); !slices.Equal(got, test.want) {
			t.Errorf("it did %v, want %v", got, test.want)
		}
		if f.Applied(5) != 11 || f.Applied(6) != 7 || len(f.holes(time.Now().Add(time.Hour))) > 0 {
			t.Errorf("applied are %d and %d, holes %v", f.Applied(5), f.Applied(6), f.holes(time.Now().Add(time.Hour)))
		}
		f.stop()
	}
}

// TestLossWhileAsleep has the database lose something while one lane wakes and the others sleep: all go on from where it
// is, and what was read before the loss says nothing.
func TestLossWhileAsleep(t *testing.T) {
	f, did := lanesAsleep(t)
	defer f.stop()
	waking := f.wakings()
	sleeping, restarts := f.sleeping()
	heads := Positions{}
	for b := range id.Buckets {
		heads[id.Bucket(b)] = 7
	}
	heads[5], heads[6] = 3, 4
	f.restart(heads)
	before := Positions{5: 9, 6: 9, 7: 9}
	f.wake(waking, before, nil)
	f.settle(sleeping, restarts, before, map[id.Bucket]bool{8: true})
	if got := f.positions(); got[5] != 3 || got[6] != 4 || got[7] != 7 {
		t.Errorf("the lanes are at %d, %d, %d, want 3, 4 and 7", got[5], got[6], got[7])
	}
	f.offer(Commit{Bucket: 5, Prev: 3, Pos: 4})
	if got := did(); !slices.Equal(got, []int64{-3, 4}) {
		t.Errorf("it did %v", got)
	}
	if n := f.awakened(); n != 1 {
		t.Errorf("%d lanes are awake", n)
	}
}

// TestStopWhileWaking ends the Feed before a lane could wake: what waits for it is run, so that nobody waits for ever.
func TestStopWhileWaking(t *testing.T) {
	f, did := lanesAsleep(t)
	f.wakings()
	f.stop()
	if got := did(); !slices.Equal(got, []int64{-7}) {
		t.Errorf("it did %v", got)
	}
	if f.At(5, func(int64) {}) || f.At(6, func(int64) {}) {
		t.Error("something was taken after the end")
	}
}
