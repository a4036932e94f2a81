package chat

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// On a bus that others share, a node hears only the buckets that somebody here wants: a room, a follower, a sign-in. The
// lanes of the others are asleep (decision 10). Of what is committed there only one thing can concern this node: a
// membership of somebody who is here. That is told on membersSubject, and looked for with every poll.
//
// An asleep lane's applied is where its bucket is known up to: all up to there was handled, or concerns nobody here. It
// moves on with every poll, so that it is never far behind.

const (
	// membersSubject is where the nodes tell each other whose memberships changed.
	membersSubject = "parley.members"
	// What is told of a bucket and not yet handled is held to these; beyond them it is read from the log.
	bucketHints     = 1024
	bucketHintBytes = bus.PayloadBytesMax
	// wakeRetry is how long a lane waits for the next attempt to wake it.
	wakeRetry = 100 * time.Millisecond
	// spreadWait is how long after a lane woke the heads are read again, or twice as long: by then all nodes know that this
	// one listens.
	spreadWait = 200 * time.Millisecond
	// wakeTimeout bounds one attempt to wake lanes.
	wakeTimeout = 5 * time.Second
)

// laneState is what a lane does with what it is told.
type laneState uint8

const (
	awake  laneState = iota // it is brought into order and handled
	waking                  // it is held, and what is to be run waits, until it is known where the lane begins
	asleep                  // it is ignored
)

// Keep counts by delta who wants to hear of bucket b. A lane that nobody keeps falls asleep after a while; one that is
// kept wakes, and goes on from where its bucket then is. It is called after Start.
func (f *Feed) Keep(b id.Bucket, delta int) {
	l := &f.lanes[b]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepers += delta
	if l.keepers < 0 {
		panic("chat: a bucket is let go of more often than it was kept")
	}
	l.used = time.Now()
	if l.keepers > 0 {
		f.rouse(l)
	}
}

// rouse has a lane woken if it is asleep; l.mu is held.
func (f *Feed) rouse(l *lane) {
	if l.state != asleep || l.closed {
		return
	}
	l.state = waking
	l.order = order{applied: -1} // which holds whatever comes
	select {
	case f.roused <- struct{}{}:
	default:
	}
}

// begin ends waking: first the commits read are handled, which begin at start, then what waited is run, and then comes
// what was told meanwhile. l.mu is held.
func (f *Feed) begin(l *lane, start int64, read ...Commit) {
	waited, held := l.queue, l.order.held
	l.queue, l.state, l.used = nil, awake, time.Now()
	l.order = order{applied: start}
	l.applied.Store(start)
	through := func(commits []Commit) {
		for _, c := range commits {
			for _, ready := range l.order.offer(c, time.Now()) {
				l.queue = append(l.queue, task{commit: ready})
			}
		}
	}
	through(read)
	l.queue = append(l.queue, waited...)
	through(held)
	f.kick(l)
}

// drowse puts to sleep the lanes that nobody has wanted for a while.
func (f *Feed) drowse(now time.Time) {
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		var heard *bus.Subscription
		if l.state == awake && l.keepers == 0 && !l.running && now.Sub(l.used) >= f.sleepAfter {
			l.state, l.order = asleep, order{} // what is held is found again if it concerns anybody
			heard, l.heard = l.heard, nil
		}
		l.mu.Unlock()
		unhear(heard)
	}
}

// unhear ends a subscription, if there is one. No lock is held.
func unhear(s *bus.Subscription) {
	if s != nil {
		s.Unsubscribe()
	}
}

// sleeping are the places of the lanes that are asleep, for settle.
func (f *Feed) sleeping() (places Positions, restarts int64) {
	restarts = f.restarts.Load()
	places = Positions{}
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		if l.state == asleep {
			places[id.Bucket(b)] = l.applied.Load()
		}
		l.mu.Unlock()
	}
	return places, restarts
}

// settle takes note of what the log has behind places, up to heads: where it concerns somebody the lane wakes, the others
// sleep on, and are known to be there.
func (f *Feed) settle(places Positions, restarts int64, heads Positions, concerned map[id.Bucket]bool) {
	for b, place := range places {
		l := &f.lanes[b]
		l.mu.Lock()
		switch {
		case l.state != asleep || l.applied.Load() != place || f.restarts.Load() != restarts:
		case concerned[b]:
			f.rouse(l)
		case heads[b] > place:
			l.applied.Store(heads[b])
		}
		l.mu.Unlock()
	}
}

// wakings are the places of the lanes that are waking, all of which hear their bucket from here on.
func (f *Feed) wakings() Positions {
	places := Positions{}
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		deaf := l.state != asleep && l.heard == nil && !l.closed
		l.mu.Unlock()
		var heard *bus.Subscription
		if deaf {
			heard = f.listen(id.Bucket(b))
		}
		l.mu.Lock()
		if l.state == waking {
			places[id.Bucket(b)] = l.applied.Load()
		}
		if l.state != asleep && l.heard == nil && !l.closed {
			l.heard, heard = heard, nil
		}
		l.mu.Unlock()
		unhear(heard)
	}
	return places
}

// wake begins the lanes that are still waking at heads, which were read after wakings. Where what lies between place and
// head concerns somebody who is here it has been read, and is handled first. It returns those that are awake now.
func (f *Feed) wake(places, heads Positions, read map[id.Bucket]Commit) (woken []id.Bucket) {
	for b, place := range places {
		l := &f.lanes[b]
		l.mu.Lock()
		if l.state == waking { // else the database has lost something, and the lane has begun elsewhere
			if commit, ok := read[b]; ok {
				f.begin(l, place, commit)
			} else {
				head := max(place, heads[b])
				l.queue = slices.Insert(l.queue, 0, task{f: func(int64) { f.skipped(b, head) }})
				f.begin(l, head)
			}
			woken = append(woken, b)
		}
		l.mu.Unlock()
	}
	return woken
}

// awakened is how many lanes are not asleep.
func (f *Feed) awakened() (n int) {
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		if l.state != asleep {
			n++
		}
		l.mu.Unlock()
	}
	return n
}

// expect has the log read if the commits up to pos do not come in time.
func (f *Feed) expect(b id.Bucket, pos int64) { f.offer(Commit{Bucket: b, Prev: pos, Pos: pos}) }

// membersHint tells that memberships of these users changed at a position.
type membersHint struct {
	Bucket id.Bucket `json:"b"`
	Pos    int64     `json:"p"`
	Users  []id.User `json:"u"`
}

// membersOf is what is to be told of a commit's memberships; false: it changed none.
func membersOf(c Commit) (h membersHint, any bool) {
	h = membersHint{Bucket: c.Bucket, Pos: c.Pos}
	for _, ch := range c.Changes {
		for _, m := range ch.Members {
			h.Users = append(h.Users, m.UserID)
		}
	}
	return h, len(h.Users) > 0
}

// hearMembers takes what other nodes told of memberships.
func (f *Feed) hearMembers(m bus.Message) {
	var h membersHint
	if err := json.Unmarshal(m.Data, &h); err != nil {
		f.log.Warn("a hint cannot be read", "subject", m.Subject, "err", err)
		return
	}
	f.members(h)
}

// members wakes the lane of a bucket in which a membership of somebody changed who is here.
func (f *Feed) members(h membersHint) {
	if h.Pos <= f.Applied(h.Bucket) || !slices.ContainsFunc(h.Users, f.present) {
		return
	}
	l := &f.lanes[h.Bucket]
	l.mu.Lock()
	f.rouse(l)
	l.mu.Unlock()
	f.expect(h.Bucket, h.Pos)
}

// runWaker wakes lanes until ctx ends: those that are roused together by one read of the heads.
func (c *Chat) runWaker(ctx context.Context) {
	var retry, spread <-chan time.Time
	woken := map[id.Bucket]time.Time{} // whose heads are to be read once more
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Feed.roused:
		case <-retry:
		case <-spread:
			spread = nil
			if err := c.expectHeads(ctx, woken); err != nil && ctx.Err() == nil {
				c.log.Warn("the heads of the log could not be read", "err", err) // the poll will read them
			}
			maps.DeleteFunc(woken, func(_ id.Bucket, at time.Time) bool { return time.Since(at) >= spreadWait })
			if len(woken) > 0 {
				spread = time.After(spreadWait)
			}
			continue
		}
		retry = nil
		now, err := c.wakeLanes(ctx)
		for _, b := range now {
			woken[b] = time.Now()
		}
		if len(now) > 0 && spread == nil {
			spread = time.After(spreadWait)
		}
		if err != nil {
			if ctx.Err() == nil {
				c.log.Error("lanes of the log could not be woken", "err", err)
			}
			retry = time.After(wakeRetry)
		}
	}
}

// wakeLanes wakes all lanes that are waking.
func (c *Chat) wakeLanes(ctx context.Context) (woken []id.Bucket, err error) {
	ctx, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	places := c.Feed.wakings()
	if len(places) == 0 {
		return nil, nil
	}
	heads, concerned, err := c.lookBehind(ctx, places)
	if err != nil {
		return nil, err
	}
	read := map[id.Bucket]Commit{}
	for b := range concerned {
		if read[b], err = c.readLog(ctx, b, places[b], fillMax); err != nil {
			return nil, err
		}
	}
	if _, settled := c.runs.at(); !settled {
		return nil, errors.New("chat: another server was met, and this node's run is not on it yet")
	}
	return c.Feed.wake(places, heads, read), nil
}

// expectHeads has the log read in those of buckets in which something was told before the other nodes knew that this
// one listens.
func (c *Chat) expectHeads(ctx context.Context, buckets map[id.Bucket]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	heads, err := c.readHeads(ctx)
	if err != nil {
		return err
	}
	for b := range buckets {
		c.Feed.expect(b, heads[b])
	}
	return nil
}

// lookBehind reads the heads, and in which of the buckets of places a membership of somebody who is here changed behind
// the place.
func (c *Chat) lookBehind(ctx context.Context, places Positions) (heads Positions, concerned map[id.Bucket]bool, err error) {
	concerned = map[id.Bucket]bool{}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		if heads, err = selectHeads(ctx, tx); err != nil {
			return err
		}
		return eachMemberBehind(ctx, tx, heads.Beyond(places), places, func(b id.Bucket, u id.User) {
			if !concerned[b] && c.Feed.present(u) {
				concerned[b] = true
			}
		})
	})
	return heads, concerned, err
}

// listen hears a bucket.
func (c *Chat) listen(b id.Bucket) *bus.Subscription {
	s, err := c.bus.HearWithin(bucketHints, bucketHintBytes, logSubject(b), c.Feed.hear)
	if err != nil { // the bus is closed
		c.log.Warn("a bucket of the log is not heard", "bucket", b, "err", err)
	}
	return s
}
