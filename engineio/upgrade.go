package engineio

import "time"

// farewell bounds how long a WebSocket that is given up may take to see the end.
const farewell = 2 * time.Second

// upgrade is the goroutine of a WebSocket that is to take over a polling connection (protocol 4, "Upgrade").
func (r *reader) upgrade() {
	defer r.c.srv.conns.Done()
	if !r.probe() {
		r.release()
		r.c.abandonUpgrade()
		_ = r.ws.write(wsClose.wire, farewell) // It is closed in any case.
		_ = r.ws.nc.Close()                    // It was nobody's yet.
		return
	}
	r.c.srv.conns.Add(1)
	r.read()
}

// probe exchanges the probes and waits for the upgrade packet, after which the connection is this WebSocket's. It reports whether it came.
func (r *reader) probe() bool {
	c := r.c
	timeout := c.srv.opts.UpgradeTimeout
	deadline := time.Now().Add(timeout)
	for {
		c.setReadDeadline(r.ws, deadline)
		opcode, payload, err := r.next()
		if err == errIdle {
			if r.wait() != nil {
				return false
			}
			continue
		}
		if err != nil {
			return false
		}
		switch {
		case opcode == opPing:
			if r.ws.write(controlFrame(opPong, payload).wire, timeout) != nil {
				return false
			}
		case opcode == opPong:
		case opcode == opText && string(payload) == "2probe":
			c.probedOK() // A client that has the answer may count on it.
			if r.ws.write(packetFrame("3probe").wire, timeout) != nil {
				return false
			}
		case opcode == opText && string(payload) == "5":
			return c.adopt(r.ws)
		default:
			return false
		}
	}
}

// probedOK has polls answered soon from now on: the client waits for its last one before it sends the upgrade packet.
func (c *Conn) probedOK() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probed = true
	if c.ws.nc == nil {
		c.wakeWriter()
	}
}

// adopt makes ws the transport of the connection, unless that has ended. What is queued follows over it, in order.
func (c *Conn) adopt(ws wsConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen {
		return false
	}
	if c.poll != nil {
		c.wakeWriter() // A client that keeps to the protocol has none; it finds the WebSocket and is refused.
	}
	c.ws, c.candidate, c.probed = ws, nil, false
	_ = ws.nc.SetReadDeadline(time.Time{}) // A failure shows in the read.
	counts := &c.shard.counts
	counts.pollings.Add(-1)
	counts.websockets.Add(1)
	counts.upgraded.Add(1)
	if len(c.queue) > 0 {
		c.wakeWriter()
	}
	return true
}

func (c *Conn) abandonUpgrade() {
	c.mu.Lock()
	c.candidate, c.probed = nil, false
	c.mu.Unlock()
}
