package engineio

import (
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

// push appends f to the queue and reports whether it fits. A lone frame always fits. Called with mu held.
func (c *Conn) push(f *Frame) bool {
	c.sent++
	if f.volatile && !c.isReady() {
		c.shard.counts.dropped.Add(1)
		return true
	}
	limit := c.srv.opts.QueueBytesMax
	if f.key != "" && (c.slow || c.queueBytes > limit/4) {
		c.dropOlder(f.key)
	}
	if c.queueBytes > 0 && c.queueBytes+len(f.wire) > limit {
		c.dropAll()
		if c.queueBytes+len(f.wire) > limit && c.queueBytes > 0 {
			if f.key == "" {
				return false
			}
			c.shard.counts.dropped.Add(1)
			return true
		}
	}
	c.queue = append(c.queue, f)
	c.queueBytes += len(f.wire)
	if f.key != "" {
		c.droppable++
	}
	return true
}

// isReady reports whether what is queued now is on its way at once. Called with mu held.
func (c *Conn) isReady() bool {
	return c.state == stateOpen && !c.slow && (c.ws.nc != nil || c.poll != nil)
}

// dropOlder takes the droppable frames with this key out of the queue. It looks from the newest to the oldest droppable one, which are few and
// near the end, while what must not be lost may be thousands. Called with mu held.
func (c *Conn) dropOlder(key string) {
	for i, left := len(c.queue)-1, c.droppable; left > 0; i-- {
		f := c.queue[i]
		if f.key == "" {
			continue
		}
		left--
		if f.key == key {
			c.queue = slices.Delete(c.queue, i, i+1)
			c.dropped(f)
		}
	}
}

// dropAll takes every droppable frame out of the queue. Called with mu held.
func (c *Conn) dropAll() {
	if c.droppable == 0 {
		return
	}
	c.queue = slices.DeleteFunc(c.queue, func(f *Frame) bool {
		if f.key == "" {
			return false
		}
		c.dropped(f)
		return true
	})
}

func (c *Conn) dropped(f *Frame) {
	c.queueBytes -= len(f.wire)
	c.droppable--
	c.shard.counts.dropped.Add(1)
}

// emptyQueue forgets the queue, whose frames the caller has taken. Called with mu held.
func (c *Conn) emptyQueue() {
	c.queueBytes, c.droppable = 0, 0
	if cap(c.queue) > 8 {
		c.queue = nil // An idle connection keeps no room for a burst.
		return
	}
	clear(c.queue)
	c.queue = c.queue[:0]
}

// wakeWriter lets whoever writes for this connection know of the queue. Called with mu held.
func (c *Conn) wakeWriter() {
	switch {
	case c.state == stateOpening:
	case c.ws.nc != nil:
		if !c.scheduled && !c.slow {
			c.scheduled = true
			c.shard.schedule(c)
		}
	case c.poll != nil:
		select {
		case c.poll <- struct{}{}:
		default: // It has been woken already.
		}
	}
}

// writeSlowly has a goroutine write rest and then what is queued, waiting for the socket. Only the flusher calls it.
func (c *Conn) writeSlowly(ws wsConn, rest [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return
	}
	c.slow = true
	c.queueBytes += sizeOf(rest)
	c.srv.conns.Go(func() { c.drain(ws, rest) })
}

func (c *Conn) drain(ws wsConn, rest [][]byte) {
	for {
		size := sizeOf(rest)
		_ = ws.nc.SetWriteDeadline(time.Now().Add(c.srv.opts.WriteTimeout)) // A failure shows in the write.
		bufs := net.Buffers(rest)
		n, err := bufs.WriteTo(ws.nc)
		c.shard.counts.bytesOut.Add(n)
		if err != nil {
			c.unwritten(err)
			return
		}
		c.mu.Lock()
		c.queueBytes -= size
		if len(c.queue) == 0 {
			c.slow = false
			_ = ws.nc.SetWriteDeadline(time.Time{}) // As above.
			last := c.state == stateClosing
			c.mu.Unlock()
			if last {
				ws.closeWrite()
			}
			return
		}
		rest = make([][]byte, len(c.queue))
		for i, f := range c.queue {
			rest[i] = f.wire
		}
		c.shard.counts.packetsOut.Add(int64(len(rest)))
		unwritten := c.queueBytes
		c.emptyQueue()
		c.queueBytes = unwritten
		c.mu.Unlock()
	}
}

// unwritten ends the connection after what was taken from its queue could not be written.
func (c *Conn) unwritten(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.shard.counts.slow.Add(1)
		c.abort(ReasonSlow)
		return
	}
	c.abort(ReasonTransportError)
}

func sizeOf(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n
}
