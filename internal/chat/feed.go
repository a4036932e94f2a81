package chat

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"parley/internal/bus"
	"parley/internal/id"
)

// Feed is this node's view of the log as it grows: every commit of every node, bucket by bucket, in
// the order of positions, each once. What was told is brought into order; what was lost on the way is
// read from SQL: a hole after holeWait, a lost tail by a poll. Where other nodes are, it leaves out the buckets that
// nobody here wants (interest.go).
type Feed struct {
	lanes  [id.Buckets]lane
	handle func(Commit)
	here   func(server string) bool // whether the node's run is on this server, and no other was met since
	log    *slog.Logger
	work   sync.WaitGroup
	fills  atomic.Int64 // how often the log had to be read

	// Of a Feed whose lanes sleep. present tells whether a user is here, so that a membership of his concerns this node;
	// listen has what is told of a bucket come to hear, and is nil if it cannot; skipped is called on a lane that woke, with
	// the position behind which it handles everything.
	present        func(id.User) bool
	listen         func(id.Bucket) *bus.Subscription
	skipped        func(b id.Bucket, head int64)
	sleepAfter     time.Duration
	roused         chan struct{} // some lane is waking
	restarts       atomic.Int64
	heard, ignored atomic.Int64 // hints

	complete atomic.Int64 // of Complete, in milliseconds since 1970
}

// lane is the work of one bucket. At most one goroutine does it at a time, and it owns what belongs to
// the bucket, here and in whoever handles its commits.
type lane struct {
	applied atomic.Int64 // the position up to which commits were handled, or concern nobody here

	mu      sync.Mutex
	order   order
	queue   []task
	running bool
	closed  bool

	state   laneState
	keepers int
	used    time.Time         // when somebody last wanted it
	heard   *bus.Subscription // of the bucket; nil while it is asleep
}

// task is a commit to be handled or a function to be run.
type task struct {
	commit Commit
	f      func(applied int64)
}

// Applied is the position up to which all commits of bucket b have been handled, but for those that were of concern to
// nobody here.
func (f *Feed) Applied(b id.Bucket) int64 { return f.lanes[b].applied.Load() }

// Complete is a time, by this node's clock: all that was committed before it, by any node, has been handled. It lies a few
// seconds back, or longer if neither the bus nor the log could be heard.
func (f *Feed) Complete() time.Time { return time.UnixMilli(f.complete.Load()) }

// At runs do in the order of bucket b's commits: after all that were handled before, with the position
// up to which they go, and before all that come. do runs on the lane's goroutine and must not wait. A lane that is asleep wakes first, which
// takes a read of the database, and as long as that fails.
// It is false, and do does not run, when the feed has been stopped.
func (f *Feed) At(b id.Bucket, do func(applied int64)) bool {
	l := &f.lanes[b]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = time.Now()
	f.rouse(l)
	return f.push(l, task{f: do})
}

// Fills counts how often what was told had to be made good from SQL.
func (f *Feed) Fills() int64 { return f.fills.Load() }

// offer takes a commit that was told here or elsewhere.
func (f *Feed) offer(c Commit) {
	l := &f.lanes[c.Bucket]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == asleep {
		f.ignored.Add(1)
		return
	}
	for _, ready := range l.order.offer(c, time.Now()) {
		f.push(l, task{commit: ready})
	}
}

// push queues a task, unless the feed has been stopped; l.mu is held.
func (f *Feed) push(l *lane, t task) bool {
	if l.closed {
		return false
	}
	l.queue = append(l.queue, t)
	f.kick(l)
	return true
}

// kick has the queue worked through, unless it waits for the lane to wake; l.mu is held.
func (f *Feed) kick(l *lane) {
	if !l.running && l.state == awake && len(l.queue) > 0 {
		l.running = true
		f.work.Go(func() { f.run(l) })
	}
}

func (f *Feed) run(l *lane) {
	l.mu.Lock()
	for len(l.queue) > 0 {
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, t := range queue {
			if t.f != nil {
				t.f(l.applied.Load())
				continue
			}
			f.handle(t.commit)
			l.applied.Store(t.commit.Pos)
		}
		l.mu.Lock()
	}
	l.running = false
	l.mu.Unlock()
}

// start sets every lane to the head of its bucket, awake or asleep; commits offered before that are kept or dropped by it.
func (f *Feed) start(heads map[id.Bucket]int64, state laneState) {
	for b, head := range heads {
		l := &f.lanes[b]
		l.mu.Lock()
		held := l.order.held
		l.order = order{applied: head}
		l.applied.Store(head)
		for _, c := range held {
			for _, ready := range l.order.offer(c, time.Now()) {
				f.push(l, task{commit: ready})
			}
		}
		l.state = state
		l.mu.Unlock()
	}
}

// stop ends the lanes after what they have under way.
func (f *Feed) stop() {
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		l.closed = true
		if l.state == waking { // what waits for it waits no longer
			l.state = awake
			f.kick(l)
		}
		heard := l.heard
		l.heard = nil
		l.mu.Unlock()
		unhear(heard)
	}
	f.work.Wait()
}

// hear takes what other nodes told. A hint that cannot be read is lost, and the log makes it good.
func (f *Feed) hear(m bus.Message) {
	f.heard.Add(1)
	var c Commit
	if err := json.Unmarshal(m.Data, &c); err != nil {
		f.log.Warn("a hint cannot be read", "subject", m.Subject, "err", err)
		return
	}
	if f.here(c.Server) { // else it is read from the log when the node is on that server too, if it is there
		f.offer(c)
	}
}

// holes lists the buckets whose log is to be read now.
func (f *Feed) holes(now time.Time) (from map[id.Bucket]int64) {
	for b := range f.lanes {
		l := &f.lanes[b]
		l.mu.Lock()
		if l.state == awake && l.order.overdue(now) {
			if from == nil {
				from = map[id.Bucket]int64{}
			}
			from[id.Bucket(b)] = l.order.applied
		}
		l.mu.Unlock()
	}
	return from
}

// runFeed reads the log where what was told does not suffice, until ctx ends.
func (c *Chat) runFeed(ctx context.Context) {
	every := time.NewTicker(holeWait / 2)
	defer every.Stop()
	lastPoll, behind := time.Time{}, map[id.Bucket]int64{}
	readAt := time.Now() // when behind was read, or before
	var checkpoints checkpointer
	for {
		again := false
		select {
		case <-ctx.Done():
			return
		case <-c.reread:
			again = true
		case <-every.C:
		}
		now := time.Now()
		from := c.Feed.holes(now)
		if again || now.Sub(lastPoll) >= c.o.PollEvery {
			lastPoll = now
			if c.o.Shared {
				c.Feed.drowse(now)
			}
			// A bucket is behind when its head of one poll ago has not been reached.
			if c.Feed.handled(behind) {
				c.Feed.complete.Store(readAt.UnixMilli())
			}
			polled := time.Now()
			late, heads, ok := c.poll(ctx, behind, again)
			if ok { // else the heads of before may be those of another history by now
				behind, readAt = heads, polled
				if err := checkpoints.note(ctx, c, behind, time.Now()); err != nil && ctx.Err() == nil {
					c.log.Warn("clients that come back without a cursor may not be told all that they missed", "err", err)
				}
			}
			for b, n := range late {
				if from == nil {
					from = map[id.Bucket]int64{}
				}
				from[b] = n
			}
		}
		for b, n := range from {
			commit, err := c.readLog(ctx, b, n, fillMax)
			if err != nil {
				if ctx.Err() == nil {
					c.log.Error("the log could not be read", "bucket", b, "err", err)
				}
				break
			}
			if _, settled := c.runs.at(); !settled {
				break
			}
			c.Feed.fills.Add(1)
			c.Feed.offer(commit)
		}
	}
}

// handled reports whether every bucket has been handled up to its position in heads.
func (f *Feed) handled(heads map[id.Bucket]int64) bool {
	for b, head := range heads {
		if f.Applied(b) < head {
			return false
		}
	}
	return true
}

// poll compares the heads of all buckets with what is on its way to be handled, and wakes the lanes that must not sleep on.
// before are the heads of the last poll; at once says that a bucket is late as soon as it is behind. ok is false if they
// could not be read.
func (c *Chat) poll(ctx context.Context, before map[id.Bucket]int64, atOnce bool) (late, heads map[id.Bucket]int64, ok bool) {
	places, restarts := c.Feed.sleeping()
	heads, concerned, err := c.lookBehind(ctx, places)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("the heads of the log could not be read", "err", err)
		}
		return nil, nil, false
	}
	if _, settled := c.runs.at(); settled {
		c.Feed.settle(places, restarts, heads, concerned)
	}
	late = map[id.Bucket]int64{}
	for b, head := range heads {
		l := &c.Feed.lanes[b]
		l.mu.Lock()
		applied, hears := l.order.applied, l.state == awake
		l.mu.Unlock()
		if !hears {
			continue
		}
		if atOnce && applied < head || applied < before[b] {
			late[b] = applied
		}
	}
	return late, heads, true
}
