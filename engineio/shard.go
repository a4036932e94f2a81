package engineio

import (
	"sync"
	"sync/atomic"
)

// scratchBytes is the size of the buffer in which a flusher joins small frames, so that a queue leaves in one call. Frames of at
// least directBytes are written from where they are.
const (
	scratchBytes = 64 << 10
	directBytes  = 16 << 10
)

// A shard holds a part of the server's connections: their registry, the list of those with something to write, and the wheel of their deadlines.
type shard struct {
	wheel  wheel
	counts counters

	mu      sync.Mutex
	conns   map[string]*Conn // by session id, until the last goroutine of the connection is done
	dirty   []*Conn          // WebSocket connections to be flushed
	asleep  bool
	stopped bool

	wake *sync.Cond // on mu: dirty or stopped changed

	// Of the flusher alone.
	frames  []*Frame
	scratch []byte
	raw     rawWriter
}

// counters are sums over the life of a shard, but for those named as present.
type counters struct {
	websockets, pollings atomic.Int64 // present
	opened, upgraded     atomic.Int64
	packetsIn, bytesIn   atomic.Int64
	packetsOut, bytesOut atomic.Int64
	dropped, slow        atomic.Int64
	parseErrors, panics  atomic.Int64
	pingTimeouts         atomic.Int64
	refused, unpolled    atomic.Int64
}

func newShard() *shard {
	s := &shard{conns: map[string]*Conn{}, scratch: make([]byte, 0, scratchBytes)}
	s.wake = sync.NewCond(&s.mu)
	s.raw.init()
	return s
}

// schedule puts c on the list to be flushed. The caller has set c.scheduled, so that it stands there once.
func (s *shard) schedule(c *Conn) {
	s.mu.Lock()
	s.dirty = append(s.dirty, c)
	wake := s.asleep
	s.asleep = false
	s.mu.Unlock()
	if wake {
		s.wake.Signal()
	}
}

// run flushes connections until stop is called and nothing is left to flush.
func (s *shard) run() {
	var batch []*Conn
	for {
		s.mu.Lock()
		for len(s.dirty) == 0 {
			if s.stopped {
				s.mu.Unlock()
				return
			}
			s.asleep = true
			s.wake.Wait()
		}
		batch, s.dirty = s.dirty, batch[:0]
		s.mu.Unlock()
		for i, c := range batch {
			batch[i] = nil
			s.flush(c)
		}
		if cap(batch) > 16<<10 {
			batch = nil // A burst must not keep its list for ever.
		}
	}
}

func (s *shard) stop() {
	s.mu.Lock()
	s.stopped = true
	s.asleep = false
	s.mu.Unlock()
	s.wake.Signal()
}

// flush writes all that c has queued, as far as its socket takes it without blocking.
func (s *shard) flush(c *Conn) {
	c.mu.Lock()
	c.scheduled = false
	if c.slow || c.ws.nc == nil {
		c.mu.Unlock()
		return
	}
	s.frames = append(s.frames[:0], c.queue...)
	c.emptyQueue()
	last := c.state == stateClosing
	ws := c.ws
	c.mu.Unlock()

	rest, err := s.writeNow(ws, s.frames)
	clear(s.frames)
	switch {
	case err != nil:
		c.abort(ReasonTransportError)
	case len(rest) > 0:
		c.writeSlowly(ws, rest)
	case last:
		ws.closeWrite()
	}
}

// writeNow writes frames without blocking, and returns what the socket did not take.
func (s *shard) writeNow(ws wsConn, frames []*Frame) (rest [][]byte, err error) {
	packets, bytes := len(frames), 0
	defer func() {
		s.counts.packetsOut.Add(int64(packets))
		s.counts.bytesOut.Add(int64(bytes))
	}()
	for len(frames) > 0 {
		b, n := join(s.scratch, frames)
		first := frames[0].wire
		frames = frames[n:]
		written := 0
		if ws.raw != nil {
			written, err = s.raw.write(ws.raw, b)
		}
		bytes += written
		if err != nil {
			return nil, err
		}
		if written < len(b) {
			if n == 1 {
				rest = append(rest, first[written:]) // Shared with every other connection that is slow.
			} else {
				rest = append(rest, append([]byte(nil), b[written:]...))
			}
			for _, f := range frames {
				rest = append(rest, f.wire)
			}
			packets -= len(frames)
			return rest, nil
		}
	}
	return nil, nil
}

// join returns the bytes of the first n frames as one slice: a single frame's own, or several copied to scratch.
func join(scratch []byte, frames []*Frame) (b []byte, n int) {
	if len(frames) == 1 || len(frames[0].wire) >= directBytes {
		return frames[0].wire, 1
	}
	b = scratch[:0]
	for n < len(frames) && len(frames[n].wire) < directBytes && len(b)+len(frames[n].wire) <= cap(b) {
		b = append(b, frames[n].wire...)
		n++
	}
	return b, n
}
