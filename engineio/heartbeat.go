package engineio

import (
	"math"
	"time"
)

// Sent returns how many packets have been queued for the client since the connection began, and how many of them the client has certainly
// received: those queued before the last ping that it answered, since the transports keep the order, across an upgrade too. Pings do not
// count; a droppable frame that was dropped counts as if it had been sent.
func (c *Conn) Sent() (sent, confirmed uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.sent - uint64(uint32(c.sent)-c.confirmed)
}

// Ping sends a ping now, unless one waits for its pong, so that what has been sent is soon confirmed (see [Conn.Sent]). A client must answer
// it as any other, in Options.PingTimeout. Before the handshake has been written, and once the connection ends, it does nothing.
func (c *Conn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen || c.awaitingPong {
		return
	}
	c.heartbeat = c.srv.now()
	c.ping(c.heartbeat)
	c.putInWheel()
}

// SetDeadline closes the connection with ReasonTimeout if it is not called again within d; 0 cancels. It is as exact as the
// server's tick, a fiftieth of the ping timeout.
func (c *Conn) SetDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = 0
	if d > 0 {
		c.deadline = c.srv.now() + d
		if c.state == stateOpen {
			c.putInWheel()
		}
	}
}

// putInWheel has look called when the next thing is due. Called with mu held.
func (c *Conn) putInWheel() {
	due := min(c.heartbeat, c.firstPoll())
	if c.deadline != 0 {
		due = min(due, c.deadline)
	}
	c.shard.wheel.put(c, due)
}

// look does what is due by now: a ping, or an end.
func (c *Conn) look(now time.Duration) {
	c.mu.Lock()
	switch {
	case c.state == stateClosed:
	case c.state == stateClosing && c.heartbeat > now:
		c.shard.wheel.put(c, c.heartbeat)
	case c.state == stateClosing:
		c.mu.Unlock()
		c.abort(c.reason)
		return
	case c.deadline != 0 && c.deadline <= now:
		c.mu.Unlock()
		c.close(ReasonTimeout, wsClose)
		return
	case c.isOverdue(now) && c.isExcused():
		c.heartbeat = now + c.srv.opts.PingTimeout
		c.putInWheel()
	case c.isOverdue(now):
		c.mu.Unlock()
		c.shard.counts.pingTimeouts.Add(1)
		c.abort(ReasonPingTimeout)
		return
	case c.firstPoll() <= now:
		c.mu.Unlock()
		c.shard.counts.unpolled.Add(1)
		c.abort(ReasonTimeout)
		return
	case c.heartbeat <= now:
		c.ping(now)
		c.putInWheel()
	default:
		c.putInWheel()
	}
	c.mu.Unlock()
}

// firstPoll returns when it is too late for the first request after a handshake over polling, or a time that never comes. Called with mu held.
func (c *Conn) firstPoll() time.Duration {
	if !c.unpolled || c.awaitingPong {
		return math.MaxInt64 // The missing pong comes to the same.
	}
	return c.heartbeat - c.srv.opts.PingInterval + c.srv.opts.FirstPollTimeout
}

// polled notes that a request has followed the handshake.
func (c *Conn) polled() {
	c.mu.Lock()
	c.unpolled = false
	c.mu.Unlock()
}

// isOverdue reports whether a pong has not come in time. Called with mu held.
func (c *Conn) isOverdue(now time.Duration) bool { return c.awaitingPong && c.heartbeat <= now }

// Excuses for a pong that is late: it may wait behind messages that are being handled, which is not the client's fault.
const (
	excuseNone    = iota
	excuseHandled // since the ping a message has been handled, behind which it may be found
	excuseUsed    // and the client was given its time once more
)

// isExcused reports whether the client may have answered a ping that it is late for: while a handler runs, and once after one has. Called
// with mu held.
func (c *Conn) isExcused() bool {
	if !c.dispatch.TryLock() {
		c.excuse = excuseNone
		return true
	}
	c.dispatch.Unlock()
	if c.excuse == excuseHandled {
		c.excuse = excuseUsed
		return true
	}
	return false
}

// ping sends a ping (protocol 4, "Heartbeat"). Called with mu held.
func (c *Conn) ping(now time.Duration) {
	c.awaitingPong = true
	if now-c.heartbeat > 2*c.shard.wheel.tick {
		c.heartbeat = now // The process was held up; that must not shorten the client's time.
	}
	c.heartbeat += c.srv.opts.PingTimeout
	c.pinged, c.excuse = uint32(c.sent), excuseNone
	c.queue = append(c.queue, pingFrame) // However full it is: without a ping there would be no pong.
	c.queueBytes += len(pingFrame.wire)
	c.wakeWriter()
}

func (c *Conn) pong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awaitingPong {
		c.awaitingPong = false
		c.confirmed = c.pinged
	}
	late := c.heartbeat
	c.heartbeat = c.srv.now() + c.srv.opts.PingInterval
	if c.heartbeat < late && c.state == stateOpen {
		c.putInWheel() // It would be looked at too late for the next ping.
	}
}
