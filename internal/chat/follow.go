package chat

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/id"
	"parley/internal/sqldb"
)

const (
	// leases are the parts in which a follower's buckets are shared out to the nodes.
	leases = 16
	// followMax is how many positions of a bucket's log a follower is given at once.
	followMax = 256
	// followBusyMax is how many buckets of a follower are handled at once by a node.
	followBusyMax = 8
	// followTick is how often positions are saved, at the most, and what failed is looked at.
	followTick = time.Second
	// followRetryMax is how long what failed waits at the most. At first it waits for a tick.
	followRetryMax = time.Minute
	// leaveMax bounds the end of following.
	leaveMax = 3 * time.Second
)

// Follower is whoever acts on what stands in the log (push, webhooks, search).
type Follower struct {
	// Name is what its positions are kept under, and the label of its metrics.
	Name string
	// FromZero has a new follower begin with the first message that there is; else it begins where the log stands at its
	// first start.
	FromZero bool
	// Handle is given what happened in a bucket from one position to another: every creation in its order, in its
	// present state; of what was changed or deleted, the latest state. Each comes at least once: again, and then maybe as one
	// page with others, after an error, a crash, or a move to another node; (conversation_id, seq) or pos tells. After an error the same
	// positions come again, later each time; other buckets go on. For one bucket there is one call at a time, for several
	// there may be eight at once. ctx ends when the node stops.
	Handle func(ctx context.Context, commit Commit) error
}

// ErrFollowed is the error of a second Follow by the same name in one process.
var ErrFollowed = errors.New("chat: there is a follower of this name already")

// Follow has f read the whole log until ctx ends, on this node and, by the same name, on others: each bucket on one at
// a time, evenly. On return it has saved how far it got. It is called between Start and the end of Run; ctx should end before
// Run's. Errors: ErrFollowed, ctx's.
func (c *Chat) Follow(ctx context.Context, f Follower) error {
	w, err := c.newFollowing(f)
	if err != nil {
		return err
	}
	defer c.unfollow(w)
	defer w.release()
	w.run(ctx)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveMax)
	defer cancel()
	if err := w.leave(leave); err != nil {
		c.log.Warn("a follower will repeat what it handled last", "follower", f.Name, "err", err)
	}
	return ctx.Err()
}

// following is a follower at work on this node. One goroutine owns it, but for told.
type following struct {
	Follower
	c       *Chat
	metrics followerMetrics

	own     runTag // that the leases are held in
	leases  [leases]lease
	buckets [id.Buckets]followed
	busy    int
	next    int // the bucket to be looked at first, so that each has its turn
	results chan followStep

	told [id.Buckets]atomic.Int64 // heads that the Feed has told of; 0: none since the last look
	wake chan struct{}
}

// lease is the right to handle some buckets and to save how far that got.
type lease struct {
	held    bool
	leaving bool // too many are held: no step begins any more
	epoch   int64
	moved   bool // some position is not saved
}

// hold notes that a lease is held, or not, and has the Feed listen to its buckets as long as it is.
func (w *following) hold(lease int, held bool) {
	l := &w.leases[lease]
	if l.held == held {
		return
	}
	l.held = held
	delta := 1
	if !held {
		delta = -1
	}
	for _, b := range bucketsOf(lease) {
		w.c.Feed.Keep(b, delta)
	}
}

// release holds no lease any more.
func (w *following) release() {
	for i := range w.leases {
		w.hold(i, false)
	}
}

// followed is a bucket of a held lease.
type followed struct {
	pos      int64 // all up to here was handled
	head     int64 // of the log, as far as it is known
	busy     bool  // a step is under way
	failures int   // in a row
	retry    time.Time
	since    time.Time // since when it is behind; zero: it is not
}

// followStep is a page of a bucket's log, handled or not.
type followStep struct {
	bucket  id.Bucket
	epoch   int64
	pos     int64 // handled up to here
	changes int
	err     error // nil as well if the node stopped meanwhile
}

func (c *Chat) newFollowing(f Follower) (*following, error) {
	w := &following{Follower: f, c: c, metrics: c.metrics.followers.of(f.Name),
		results: make(chan followStep, followBusyMax), wake: make(chan struct{}, 1)}
	c.followersMu.Lock()
	defer c.followersMu.Unlock()
	all := *c.followers.Load()
	if slices.ContainsFunc(all, func(o *following) bool { return o.Name == f.Name }) {
		return nil, fmt.Errorf("%w: %s", ErrFollowed, f.Name)
	}
	all = append(slices.Clone(all), w)
	c.followers.Store(&all)
	return w, nil
}

func (c *Chat) unfollow(w *following) {
	c.followersMu.Lock()
	defer c.followersMu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*c.followers.Load()), func(o *following) bool { return o == w })
	c.followers.Store(&all)
}

// wakeFollowers tells all followers of a commit. It is called on the bucket's lane and does not wait.
func (c *Chat) wakeFollowers(commit Commit) {
	for _, w := range *c.followers.Load() {
		w.told[commit.Bucket].Store(commit.Pos)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// run follows until ctx ends and nothing is under way.
func (w *following) run(ctx context.Context) {
	tick, beat := time.NewTicker(followTick), time.NewTicker(w.c.o.BeatEvery)
	defer tick.Stop()
	defer beat.Stop()
	w.look(ctx)
	for ctx.Err() == nil {
		w.begin(ctx)
		select {
		case <-ctx.Done():
		case step := <-w.results:
			w.done(step)
		case <-w.wake:
			w.listen()
		case <-tick.C:
			if w.own != w.c.runs.current() {
				w.look(ctx)
			}
			w.try(ctx, w.save(ctx, false))
			w.measure(time.Now())
		case <-beat.C:
			w.look(ctx)
		}
	}
	for w.busy > 0 {
		w.done(<-w.results)
	}
}

// try logs what did not succeed and will be tried again.
func (w *following) try(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.c.log.Error("a follower is held up", "follower", w.Name, "err", err)
	}
}

// look takes and gives back leases, and reads the heads, in case nothing told of them.
func (w *following) look(ctx context.Context) {
	w.try(ctx, w.balance(ctx))
	heads, err := w.c.readHeads(ctx)
	if err != nil {
		w.try(ctx, err)
		return
	}
	for b := range w.buckets {
		w.buckets[b].heard(heads[id.Bucket(b)])
	}
}

// listen takes note of what the Feed told.
func (w *following) listen() {
	for b := range w.told {
		if w.told[b].Load() > 0 {
			w.buckets[b].heard(w.told[b].Swap(0))
		}
	}
}

func (b *followed) heard(head int64) {
	b.head = max(b.head, head)
	if b.head > b.pos && b.since.IsZero() {
		b.since = time.Now()
	}
}

// begin starts steps in the buckets that have something new, as many as may be under way.
func (w *following) begin(ctx context.Context) {
	now := time.Now()
	for i := range w.buckets {
		if w.busy == followBusyMax {
			return
		}
		n := (w.next + i) % id.Buckets
		b, l := &w.buckets[n], &w.leases[leaseOf(id.Bucket(n))]
		if !l.held || l.leaving || b.busy || b.head <= b.pos || now.Before(b.retry) {
			continue
		}
		b.busy = true
		w.busy++
		w.next = n + 1
		step := followStep{bucket: id.Bucket(n), epoch: l.epoch, pos: b.pos}
		go func() { w.results <- w.step(ctx, step) }() // run waits for it
	}
}

// step reads a page of a bucket's log and has it handled.
func (w *following) step(ctx context.Context, s followStep) (out followStep) {
	defer func() {
		if p := recover(); p != nil {
			w.c.log.Error("a follower panicked", "follower", w.Name, "panic", p, "stack", string(debug.Stack()))
			out = s
			out.err = fmt.Errorf("chat: the follower %s panicked", w.Name)
		}
	}()
	commit, err := w.c.readLog(ctx, s.bucket, s.pos, followMax)
	if err == nil && len(commit.Changes) > 0 {
		err = w.Handle(ctx, commit)
	}
	switch {
	case err == nil:
		s.pos, s.changes = commit.Pos, len(commit.Changes)
	case ctx.Err() == nil:
		s.err = err
	}
	return s
}

// done takes note of what became of a step.
func (w *following) done(s followStep) {
	b, l := &w.buckets[s.bucket], &w.leases[leaseOf(s.bucket)]
	b.busy = false
	w.busy--
	w.metrics.handled.Add(float64(s.changes))
	if !l.held || l.epoch != s.epoch {
		return // the lease was lost meanwhile, and whoever has it begins where it was saved
	}
	if s.err != nil {
		w.metrics.failures.Inc()
		b.retry = time.Now().Add(min(followTick<<min(b.failures, 10), followRetryMax))
		b.failures++
		w.c.log.Warn("a follower failed", "follower", w.Name, "bucket", s.bucket, "after", s.pos, "failures", b.failures, "err", s.err)
		return
	}
	b.failures, b.retry = 0, time.Time{}
	if s.pos == b.pos {
		b.head = b.pos // who told of more was of a time that the database has lost
	} else {
		b.pos, l.moved = s.pos, true
	}
	if b.head <= b.pos {
		b.since = time.Time{}
	}
}

// save writes the positions that have moved, and lets go of the leases that are too many, or of all.
func (w *following) save(ctx context.Context, all bool) error {
	var rows [][]any
	for i := range w.leases {
		l := &w.leases[i]
		leave := l.held && (all || l.leaving && !w.under(i))
		if !l.held || !l.moved && !leave {
			continue
		}
		at := Positions{}
		for _, b := range bucketsOf(i) {
			at[b] = w.buckets[b].pos
		}
		rows = append(rows, []any{w.Name, int64(i), l.epoch, at.text(), leave})
	}
	if len(rows) == 0 {
		return nil
	}
	saved := map[int]bool{}
	err := w.c.db.InTx(ctx, func(tx *sqldb.Tx) error {
		return tx.EachMulti(ctx, func(r sqldb.Row) error {
			var l int
			err := r.Scan(&l)
			saved[l] = true
			return err
		}, saveLeases, rows)
	})
	if err != nil {
		return fmt.Errorf("chat: save what %s has handled: %w", w.Name, err)
	}
	for _, row := range rows {
		i := int(row[1].(int64))
		w.leases[i].moved = false
		if !saved[i] {
			w.c.log.Warn("a follower's lease was lost, what it handled last will be repeated", "follower", w.Name, "lease", i)
		}
		if !saved[i] || row[4].(bool) {
			w.hold(i, false)
		}
	}
	return nil
}

// under tells whether a step is under way in a lease.
func (w *following) under(lease int) bool {
	return slices.ContainsFunc(bucketsOf(lease), func(b id.Bucket) bool { return w.buckets[b].busy })
}

// leave saves how far all has been handled, and leaves the leases to others.
func (w *following) leave(ctx context.Context) error {
	if err := w.save(ctx, true); err != nil {
		return err
	}
	err := w.c.db.InTx(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM follower_runs WHERE name = $1 AND run = $2`, w.Name, w.own.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("chat: leave %s: %w", w.Name, err)
	}
	return nil
}

// share is how many leases a run should hold: as many as every other, but for one.
func share(runs []string, own string) int {
	i, found := slices.BinarySearch(runs, own)
	if !found {
		return 0
	}
	n := leases / len(runs)
	if i < leases%len(runs) {
		n++
	}
	return n
}

// balance holds this node to its share of the leases.
func (w *following) balance(ctx context.Context) error {
	if own := w.c.runs.current(); w.own != own {
		// Those of an earlier run are no longer ours, and what was handled in it may have been lost.
		w.release()
		w.own = own
	}
	held := w.held()
	if w.c.db.Dialect() == sqldb.SQLite && held == leases {
		return nil // there is nobody else
	}
	own := w.own.String()
	var runs []string
	var free int
	err := w.c.db.Read(ctx, func(tx *sqldb.Tx) (err error) {
		if runs, err = selectFollowing(ctx, tx, w.Name); err != nil {
			return err
		}
		rows, err := selectLeases(ctx, tx, w.Name)
		free = leases - len(rows)
		for _, r := range rows {
			if w.free(r) {
				free++
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("chat: look at the leases of %s: %w", w.Name, err)
	}
	most := share(runs, own)
	if most == 0 || held < most && free > 0 {
		return w.take(ctx)
	}
	for i := range w.leases {
		l := &w.leases[i]
		if l.leaving = l.held && held > most; l.leaving {
			held--
		}
	}
	return nil
}

// free tells whether a lease may be taken: nobody has it, or it was taken for us by a transaction whose end we did not learn.
func (w *following) free(r leaseRow) bool {
	return r.holder == "" || r.holder == w.own.String() && !(w.leases[r.lease].held && w.leases[r.lease].epoch == r.epoch)
}

func (w *following) held() (n int) {
	for i := range w.leases {
		if w.leases[i].held {
			n++
		}
	}
	return n
}

// take takes free leases up to the share.
func (w *following) take(ctx context.Context) error {
	own := w.own.String()
	var taken []leaseRow
	err := w.c.db.InTx(ctx, func(tx *sqldb.Tx) error {
		taken = nil
		var heads Positions
		var err error
		if !w.FromZero {
			if heads, err = selectHeads(ctx, tx); err != nil {
				return err
			}
		}
		if err := enlist(ctx, tx, w.Name, own, heads); err != nil {
			return err
		}
		runs, err := selectFollowing(ctx, tx, w.Name)
		if err != nil {
			return err
		}
		rows, err := selectLeases(ctx, tx, w.Name)
		if err != nil {
			return err
		}
		left := share(runs, own) - w.held()
		var updates [][]any
		for _, r := range rows {
			if left > 0 && w.free(r) {
				left--
				r.epoch++
				taken = append(taken, r)
				updates = append(updates, []any{w.Name, int64(r.lease), r.epoch, own})
			}
		}
		tx.Queue(takeLeases, updates, nil)
		return nil
	})
	if err != nil {
		return fmt.Errorf("chat: take leases of %s: %w", w.Name, err)
	}
	for _, r := range taken {
		w.hold(r.lease, true)
		w.leases[r.lease] = lease{held: true, epoch: r.epoch}
		for _, b := range bucketsOf(r.lease) {
			pos := r.positions[b]
			w.buckets[b] = followed{pos: pos, head: pos, busy: w.buckets[b].busy}
		}
	}
	return nil
}

// followersMetrics are labelled with the follower's name alone.
type followersMetrics struct {
	lag, age, leases  *prometheus.GaugeVec
	handled, failures *prometheus.CounterVec
}

type followerMetrics struct {
	lag, age, leases  prometheus.Gauge
	handled, failures prometheus.Counter
}

func newFollowersMetrics(r prometheus.Registerer) followersMetrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"follower"})
		r.MustRegister(v)
		return v
	}
	counter := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"follower"})
		r.MustRegister(v)
		return v
	}
	return followersMetrics{
		lag:      gauge("parley_chat_follower_lag_positions", "Positions of the log that this node has leases for and has not handled."),
		age:      gauge("parley_chat_follower_lag_seconds", "For how long some bucket has been behind the log without a break."),
		leases:   gauge("parley_chat_follower_leases", "Leases that this node holds, of 16."),
		handled:  counter("parley_chat_follower_changes_total", "Changes handled."),
		failures: counter("parley_chat_follower_failures_total", "Pages of the log that could not be read or handled, and were tried again."),
	}
}

func (m followersMetrics) of(name string) followerMetrics {
	return followerMetrics{m.lag.WithLabelValues(name), m.age.WithLabelValues(name), m.leases.WithLabelValues(name), m.handled.WithLabelValues(name), m.failures.WithLabelValues(name)}
}

// measure brings the gauges up to date.
func (w *following) measure(now time.Time) {
	var lag int64
	var age time.Duration
	for n := range w.buckets {
		b := &w.buckets[n]
		if !w.leases[leaseOf(id.Bucket(n))].held {
			continue
		}
		lag += max(b.head-b.pos, 0)
		if !b.since.IsZero() {
			age = max(age, now.Sub(b.since))
		}
	}
	w.metrics.lag.Set(float64(lag))
	w.metrics.age.Set(age.Seconds())
	w.metrics.leases.Set(float64(w.held()))
}
