package engineio

import (
	"sync"
	"time"
)

// wheelSlots times the tick is how far ahead a wheel looks; what is due later is looked at on the way.
const wheelSlots = 128

// A wheel holds the connections of a shard by the tick at which each must be looked at next. Times are since the server's start.
type wheel struct {
	tick time.Duration

	mu    sync.Mutex
	slots [wheelSlots]*Conn // heads of doubly linked lists
	now   int64             // the last tick that was taken
}

// put places c where it will be taken at the first tick not before due, moving it if it is in the wheel already.
func (w *wheel) put(c *Conn, due time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	tick := int64((due + w.tick - 1) / w.tick)
	tick = min(max(tick, w.now+1), w.now+wheelSlots-1)
	slot := tick % wheelSlots
	c.slot = int16(slot) + 1
	c.next = w.slots[slot]
	if c.next != nil {
		c.next.prev = c
	}
	w.slots[slot] = c
}

// remove takes c out of the wheel, if it is there.
func (w *wheel) remove(c *Conn) {
	w.mu.Lock()
	w.unlink(c)
	w.mu.Unlock()
}

func (w *wheel) unlink(c *Conn) {
	if c.slot == 0 {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.slots[c.slot-1] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev, c.slot = nil, nil, 0
}

// take appends to due the connections whose tick has come by now, and takes them out.
func (w *wheel) take(due []*Conn, now time.Duration) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.now < int64(now/w.tick) {
		w.now++
		for c := w.slots[w.now%wheelSlots]; c != nil; c = w.slots[w.now%wheelSlots] {
			w.unlink(c)
			due = append(due, c)
		}
	}
	return due
}
