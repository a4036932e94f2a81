package gateway

import (
	"parley/internal/chat"
	"parley/internal/id"
)

const (
	// trailPing is after how many marks a client is asked to confirm what it got.
	trailPing = 256
	// trailMax is how many it may leave unconfirmed; who leaves more is closed as slow, and goes on from what it has.
	trailMax = 8192
)

// A mark stands for a packet that a client's place depends on: that of a change in a bucket's log, or the n-th that
// gave the client a cursor. The zero mark is none.
type mark uint64

const cursorMark mark = 1 << 55 // a position never gets so far

func markOf(b id.Bucket, pos int64) mark { return mark(b)<<56 | mark(pos) }

func markOfCursor(n uint32) mark { return cursorMark | mark(n) }

func (m mark) change() (b id.Bucket, pos int64, ok bool) {
	return id.Bucket(m >> 56), int64(m & (cursorMark - 1)), m&cursorMark == 0
}

// trail is what a client was sent lately, in order. With the last that it says it got, it gives the exact place of a
// client whose connection broke. It is a state machine without I/O.
type trail struct {
	marks []mark
	// The first done marks have certainly been received. They are kept until the next are too, for whoever knows less of
	// what was sent than the client does; see place.
	done int
	// When packet number sent is confirmed, so are the first upTo marks. One such point is enough: others follow.
	sent uint64
	upTo int
}

// add notes a packet. What is told in several packets at one position is one mark.
func (t *trail) add(m mark) {
	if n := len(t.marks); n == 0 || t.marks[n-1] != m {
		t.marks = append(t.marks, m)
	}
}

// confirm notes and in time forgets what has been received, given how many packets of the connection were sent, at least
// those of all marks, and how many of them were confirmed.
func (t *trail) confirm(sent, confirmed uint64) {
	if t.upTo > 0 && confirmed >= t.sent {
		t.marks = t.marks[:copy(t.marks, t.marks[t.done:])]
		t.done, t.upTo = t.upTo-t.done, 0
	}
	switch {
	case t.upTo > 0:
	case len(t.marks) > t.done:
		t.sent, t.upTo = sent, len(t.marks)
	default:
		t.marks, t.done = nil, 0 // An idle session keeps no room for a burst.
	}
}

// raise brings at to the positions of what was sent. In each bucket that goes in order.
func (t *trail) raise(at chat.Positions) {
	for _, m := range t.marks {
		if b, pos, ok := m.change(); ok {
			at[b] = max(at[b], pos)
		}
	}
}

// place brings at, the positions up to which everything was sent, to those up to which it was received by a client that
// says it got last, and what came before it. at may lack what was sent while it was read.
func (t *trail) place(at chat.Positions, last mark) {
	received := t.done
	for i, m := range t.marks {
		if m == last {
			received = max(received, i+1)
		}
	}
	missed := map[id.Bucket]bool{}
	for i, m := range t.marks {
		b, pos, ok := m.change()
		switch {
		case !ok:
		case i < received:
			at[b] = max(at[b], pos) // It was sent after at was read.
		case !missed[b]:
			missed[b] = true
			at[b] = pos - 1
		}
	}
}
