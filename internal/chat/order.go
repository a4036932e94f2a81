package chat

import (
	"slices"
	"time"
)

const (
	// heldMax is how many commits wait for one that is missing before it; beyond it the log is read at once.
	heldMax = 64
	// holeWait is how long a missing commit may be late before it is read from the log.
	holeWait = 50 * time.Millisecond
)

// order brings the commits of one bucket, told late, twice or never, into the order of their
// positions. It does no I/O: whoever drives it reads the log when it says so.
//
// Each position is let through once, in order, without a gap.
type order struct {
	applied int64     // everything up to here was let through
	held    []Commit  // beyond a hole, sorted by Prev
	since   time.Time // since when there is a hole
}

// offer takes a commit that was told, and returns those that may be applied now, in order.
func (o *order) offer(c Commit, now time.Time) []Commit {
	switch {
	case c.Pos <= o.applied: // seen
		return nil
	case c.Prev <= o.applied:
		return o.through([]Commit{o.cut(c)})
	}
	if len(o.held) == 0 {
		o.since = now
	}
	i, found := slices.BinarySearchFunc(o.held, c.Prev, func(h Commit, prev int64) int { return int(min(max(h.Prev-prev, -1), 1)) })
	switch {
	case found && o.held[i].Pos >= c.Pos:
	case found:
		o.held[i] = c
	case len(o.held) < heldMax:
		o.held = slices.Insert(o.held, i, c)
	case i < len(o.held): // full: the farthest goes, and will be read
		o.held = slices.Insert(o.held[:len(o.held)-1], i, c)
	}
	return nil
}

// overdue tells whether the log is to be read from applied on.
func (o *order) overdue(now time.Time) bool {
	return len(o.held) > 0 && (len(o.held) >= heldMax || now.Sub(o.since) >= holeWait)
}

// cut leaves out of c what was let through already. A commit read from the log shows changes in their
// latest state and position, so whatever lies at or below applied was seen.
func (o *order) cut(c Commit) Commit {
	if c.Prev < o.applied {
		c.Changes = slices.DeleteFunc(slices.Clone(c.Changes), func(ch Change) bool { return ch.Pos <= o.applied })
		c.Prev = o.applied
	}
	return c
}

// through lets ready through and whatever it makes follow on.
func (o *order) through(ready []Commit) []Commit {
	o.applied = ready[0].Pos
	n := 0
	for _, h := range o.held {
		if h.Prev > o.applied {
			break
		}
		n++
		if h.Pos > o.applied {
			ready = append(ready, o.cut(h))
			o.applied = h.Pos
		}
	}
	o.held = slices.Delete(o.held, 0, n)
	return ready
}
