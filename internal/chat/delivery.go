package chat

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// deliveries gathers the marks of what was delivered, and has them committed all together, once every while.
type deliveries struct {
	every    time.Duration
	most     int // marks that may wait; at half of them they are committed at once
	batchMax int // marks that are committed together
	commit   func(ctx context.Context, items []*marking) error
	log      *slog.Logger
	dropped  atomic.Int64 // marks that found no room

	mu      sync.Mutex
	waiting map[mark]int64 // the highest seq; 0 for a message
	stopped bool

	soon chan struct{} // has room for one
}

// add has a mark committed later. Errors: errTooMuch, if there is no room or nothing is taken any more.
func (d *deliveries) add(m mark, seq int64) error {
	d.mu.Lock()
	before := len(d.waiting)
	taken := d.put(m, seq)
	after := len(d.waiting)
	d.mu.Unlock()
	if !taken {
		return errTooMuch
	}
	if half := (d.most + 1) / 2; before < half && after == half {
		select {
		case d.soon <- struct{}{}:
		default:
		}
	}
	return nil
}

// put has mu held.
func (d *deliveries) put(m mark, seq int64) bool {
	before, there := d.waiting[m]
	if !there && len(d.waiting) >= d.most || d.stopped {
		d.dropped.Add(1)
		return false
	}
	d.waiting[m] = max(before, seq)
	return true
}

// depth is how many marks wait.
func (d *deliveries) depth() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// run commits until ctx ends, and then what was taken by then.
func (d *deliveries) run(ctx context.Context) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-d.soon:
		case <-ctx.Done():
			d.mu.Lock()
			d.stopped = true
			d.mu.Unlock()
		}
		d.flush(context.WithoutCancel(ctx))
	}
}

// flush commits what waits. Those of a member come together, so that they become one advance. What cannot be committed, or
// not in time, waits for the next flush, if there is room.
func (d *deliveries) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	d.mu.Lock()
	waiting := d.waiting
	d.waiting = map[mark]int64{}
	d.mu.Unlock()
	marks := slices.SortedFunc(maps.Keys(waiting), func(a, b mark) int {
		return cmp.Or(cmp.Compare(a.bucket(), b.bucket()), cmp.Compare(a.user, b.user), cmp.Compare(a.conv, b.conv), cmp.Compare(a.message, b.message))
	})
	var failed []*marking
	var why error
	for part := range slices.Chunk(marks, d.batchMax) {
		items := make([]*marking, len(part))
		for i, m := range part {
			items[i] = &marking{mark: m, kind: Delivered, seq: waiting[m]}
		}
		if err := d.commit(ctx, items); err != nil {
			failed, why = append(failed, items...), err
		}
	}
	if why == nil {
		return
	}
	d.log.Error("what was delivered could not be stored", "marks", len(failed), "err", why)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range failed {
		d.put(m.mark, m.seq)
	}
}
