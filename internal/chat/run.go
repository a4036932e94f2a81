package chat

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"sync"
	"time"

	"parley/internal/id"
	"parley/internal/sqldb"
)

const (
	// silenceMax is how long a run may not be heard of before any node ends it.
	silenceMax = 30 * time.Second
	// knownRunsMax bounds the runs that are remembered; beyond it any one is forgotten.
	knownRunsMax = 4096
	// openRunFor is how long it is taken for granted that a run is still open, or still unknown.
	openRunFor = time.Second
	// endRunMax bounds the end of a run.
	endRunMax = 3 * time.Second
)

// runTag names a run. It is drawn at random, so that the runs of two histories of one database never share one.
type runTag [8]byte

func newRunTag() (t runTag) {
	_, _ = rand.Read(t[:]) // It never fails.
	return t
}

func (t runTag) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// run is what a cursor is judged by: the time that one process spent on the database, from a start of its own or from
// when it found an earlier run of its own ended.
type run struct {
	known bool // to this database, as it is now
	ended bool
	heads Positions // where the heads stood then
}

// holds tells whether a place that was given out in this run lies in the database's present history, whose heads stand at
// heads: what the run's node saw up to its end is there, what it saw behind that was lost.
func (r run) holds(p, heads Positions) bool {
	if r.ended {
		heads = r.heads
	}
	return r.known && p.within(heads)
}

// within tells whether no position lies beyond that of heads.
func (p Positions) within(heads Positions) bool {
	for b, n := range p {
		if n > heads[b] {
			return false
		}
	}
	return true
}

// runs are this node's own run and what it remembers of all.
type runs struct {
	process string // names this process, among those that have the same SQLite database one after the other

	mu      sync.Mutex
	own     runTag
	server  string // that the own run was begun on
	moved   bool   // the database has been met on another server than that; until there is a run on it, the Feed takes nothing
	known   map[runTag]knownRun
	emptied int // how often known was

	due chan struct{} // the own run has to be looked after at once
}

type knownRun struct {
	run
	until time.Time // zero: for ever
}

func newRuns() runs {
	return runs{process: rand.Text(), known: map[runTag]knownRun{}, due: make(chan struct{}, 1)}
}

// current is the tag for a cursor. It has to be taken before the cursor's positions are read: what is read in a later run
// may lie beyond this one's end, which costs a reset; the reverse could hide a loss.
func (r *runs) current() runTag {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own
}

// begun makes a run the own one. What was known of others is asked again.
func (r *runs) begun(tag runTag, server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own, r.server, r.moved = tag, server, false
	clear(r.known)
	r.emptied++
}

// met notes which server a new connection leads to.
func (r *runs) met(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == "" || r.server == server {
		return
	}
	r.moved = true
	clear(r.known)
	r.emptied++
	r.wake()
}

// at is the server that the own run is on; settled is false once another one was met, until there is a run on that.
func (r *runs) at() (server string, settled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server, !r.moved
}

// here is at for a hint of another node. One from a server that we have not met says that it is time to look.
func (r *runs) here(server string) bool {
	own, settled := r.at()
	if own == server {
		return settled
	}
	r.wake()
	return false
}

// wake has the own run looked after at once.
func (r *runs) wake() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// recall returns what is remembered of a run. emptied is for remember.
func (r *runs) recall(tag runTag, now time.Time) (found run, ok bool, emptied int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[tag]
	return k.run, ok && (k.until.IsZero() || now.Before(k.until)), r.emptied
}

func (r *runs) remember(tag runTag, found run, now time.Time, emptied int) {
	k := knownRun{run: found}
	if !found.ended {
		k.until = now.Add(openRunFor)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.moved || r.emptied != emptied {
		return // it was read from what may be another server
	}
	for other := range r.known {
		if len(r.known) < knownRunsMax {
			break
		}
		delete(r.known, other)
	}
	r.known[tag] = k
}

// findRun returns the run with this tag.
func (c *Chat) findRun(ctx context.Context, tx *sqldb.Tx, tag runTag) (run, error) {
	r, ok, emptied := c.runs.recall(tag, c.now())
	if ok {
		return r, nil
	}
	r, _, err := selectRun(ctx, tx, tag)
	if err == nil {
		c.runs.remember(tag, r, c.now(), emptied)
	}
	return r, err
}

// beginRun begins the node's first run. On SQLite it ends all that are open.
func (c *Chat) beginRun(ctx context.Context) error {
	c.db.OnConnect(c.connected) // from here on
	tag := newRunTag()
	var m moment
	err := c.db.InTx(ctx, func(tx *sqldb.Tx) (err error) {
		if m, err = c.moment(ctx, tx); err != nil {
			return err
		}
		if err = arrive(ctx, tx, m); err != nil {
			return err
		}
		return insertRun(ctx, tx, tag, m)
	})
	if err != nil {
		return fmt.Errorf("chat: begin a run: %w", err)
	}
	c.runs.begun(tag, m.server)
	return nil
}

// connected comes first on every new connection to PostgreSQL. If it leads to another server than before, that one may
// have lost what was committed last: then all runs end before anything is written to it.
func (c *Chat) connected(ctx context.Context, tx *sqldb.Tx) error {
	m, err := c.moment(ctx, tx)
	if err == nil {
		err = arrive(ctx, tx, m)
	}
	if err != nil {
		return fmt.Errorf("chat: connected: %w", err)
	}
	c.runs.met(m.server)
	return nil
}

// keepRun keeps the node's run open until ctx ends, and ends those of nodes that are not heard of.
func (c *Chat) keepRun(ctx context.Context) {
	every := time.NewTicker(c.o.BeatEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-c.runs.due:
		}
		if err := c.beat(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("this node's run could not be kept", "err", err)
		}
	}
}

// beat shows that the node lives. If others have ended its run, or the database has less than it handled, it begins another.
func (c *Chat) beat(ctx context.Context) error {
	handled := c.Feed.positions() // before the heads are read
	run := c.db.InTx
	if c.db.Dialect() == sqldb.SQLite {
		run = c.db.Read // nobody ends runs for their silence
	}
	var open int64
	var heads Positions
	err := run(ctx, func(tx *sqldb.Tx) error {
		m, err := c.moment(ctx, tx)
		if err != nil {
			return err
		}
		if heads, err = selectHeads(ctx, tx); err != nil {
			return err
		}
		tag := c.runs.current().String()
		if tx.Dialect == sqldb.SQLite {
			_, err = tx.One(ctx, []any{&open}, `SELECT 1 FROM runs WHERE tag = $1 AND ended_ms IS NULL`, tag)
			return err
		}
		if open, err = tx.Exec(ctx, `UPDATE runs SET beat_ms = $2 WHERE tag = $1 AND server = $3 AND ended_ms IS NULL`, tag, m.ms, m.server); err != nil {
			return err
		}
		_, err = endRuns(ctx, tx, m, heads, false)
		return err
	})
	if err != nil {
		return fmt.Errorf("chat: beat: %w", err)
	}
	if open > 0 && handled.within(heads) {
		return nil
	}
	return c.renewRun(ctx)
}

// renewRun begins another run of this node. If the database has lost what this node had handled, all runs end first,
// the Feed begins again where the database is, and whoever relied on it is told. Only then are cursors of the new run given out.
//
// The Feed takes nothing from a server while the node's run is on another one, so what it had handled is all of the server before.
func (c *Chat) renewRun(ctx context.Context) error {
	handled := c.Feed.positions() // before the heads are read
	old, tag := c.runs.current(), newRunTag()
	var m moment
	var heads Positions
	lost := false
	err := c.db.InTx(ctx, func(tx *sqldb.Tx) (err error) {
		if m, err = c.moment(ctx, tx); err != nil {
			return err
		}
		if heads, err = selectHeads(ctx, tx); err != nil {
			return err
		}
		own, by, err := selectRun(ctx, tx, old)
		if err != nil {
			return err
		}
		gone := !own.known || !handled.within(heads)
		lost = gone || by == endedByRestart && !handled.within(own.heads)
		if _, err = endRuns(ctx, tx, m, heads, gone); err != nil {
			return err
		}
		return insertRun(ctx, tx, tag, m)
	})
	if err != nil {
		return fmt.Errorf("chat: renew the run: %w", err)
	}
	if lost {
		c.log.Error("the database has lost what it had committed: clients will be told to begin anew")
		c.metrics.losses.Inc()
		c.Feed.restart(heads)
		c.lost()
	}
	c.runs.begun(tag, m.server)
	c.readAgain() // what the Feed did not take meanwhile
	return nil
}

// endRun ends the node's own run, when nothing is given out any more.
func (c *Chat) endRun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endRunMax)
	defer cancel()
	err := c.db.InTx(ctx, func(tx *sqldb.Tx) error {
		m, err := c.moment(ctx, tx)
		if err != nil {
			return err
		}
		heads, err := selectHeads(ctx, tx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE runs SET ended_ms = $2, ended_heads = $3, ended_by = '`+endedByItself+`' WHERE tag = $1 AND ended_ms IS NULL`,
			c.runs.current().String(), m.ms, heads.text())
		return err
	})
	if err != nil {
		return fmt.Errorf("chat: end the run: %w", err)
	}
	return nil
}

// positions are those up to which all has been handled.
func (f *Feed) positions() Positions {
	p := make(Positions, id.Buckets)
	for b := range f.lanes {
		p[id.Bucket(b)] = f.lanes[b].applied.Load()
	}
	return p
}

// restart has every lane go on from heads, whatever it handled before, and returns when all do.
func (f *Feed) restart(heads Positions) {
	f.restarts.Add(1)
	var all sync.WaitGroup
	for b := range f.lanes {
		l, head := &f.lanes[b], heads[id.Bucket(b)]
		l.mu.Lock()
		l.order = order{applied: head}
		l.queue = slices.DeleteFunc(l.queue, func(t task) bool { return t.f == nil })
		if l.state != awake {
			l.applied.Store(head)
		}
		if l.state == asleep {
			l.mu.Unlock()
			continue
		}
		l.state = awake // one that was waking begins here
		all.Add(1)
		if !f.push(l, task{f: func(int64) { l.applied.Store(head); all.Done() }}) {
			all.Done() // the feed has been stopped
		}
		l.mu.Unlock()
	}
	all.Wait()
}
