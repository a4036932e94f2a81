package engineio

import (
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Why a connection ended, in the words of the official server where it has one.
const (
	ReasonTransportClose = "transport close"      // the client closed it
	ReasonTransportError = "transport error"      // the network failed, or the client broke the rules of its transport
	ReasonPingTimeout    = "ping timeout"         // no pong in Options.PingTimeout
	ReasonParseError     = "parse error"          // the client sent what is no packet
	ReasonForcedClose    = "forced close"         // Conn.Close
	ReasonShutdown       = "server shutting down" // Server.Shutdown
	ReasonSlow           = "slow client"          // Options.QueueBytesMax or Options.WriteTimeout was exceeded
	ReasonTimeout        = "timeout"              // Conn.SetDeadline
	ReasonPanic          = "server error"         // the Session panicked
)

// ErrClosed is the error of sending to a connection that is closed or being closed.
var ErrClosed = errors.New("engineio: connection is closed")

// A Session is what the server's user keeps for a connection. Its methods are called one at a time.
type Session interface {
	// Message is called for each message of the client, in order. data is valid until it returns. While it runs, what the client sends
	// further waits, pongs included; the client counts as alive meanwhile, and has Options.PingTimeout after it.
	Message(data []byte, binary bool)
	// Close is called once, after the last Message, with one of the reasons of this package or that given to Conn.CloseFor.
	Close(reason string)
}

const (
	stateOpening = iota // the open packet has not been written; what is sent waits
	stateOpen
	stateClosing // what is queued is still written; nothing more is taken from either side
	stateClosed
)

// A Conn is one client. All methods may be called from any goroutine.
type Conn struct {
	srv     *Server
	shard   *shard
	session Session
	id      string
	remote  string
	address *address // that it is counted for; nil if none

	// next, prev and slot belong to the wheel of the shard, and are guarded by its lock.
	next, prev *Conn
	slot       int16

	droppable uint32 // frames of the queue; guarded by mu, and placed where it takes no room

	dispatch sync.Mutex // held while the session runs

	mu           sync.Mutex
	state        uint8
	scheduled    bool // on the shard's list
	slow         bool // a goroutine of its own writes to the socket
	awaitingPong bool
	probed       bool // a WebSocket has shown that it works: polls are answered at once
	posting      bool // a POST is being handled
	unpolled     bool // no request has followed the handshake
	excuse       uint8
	queueBytes   int
	queue        []*Frame
	ws           wsConn        // zero while polling
	candidate    net.Conn      // the WebSocket of an upgrade that is not complete
	poll         chan struct{} // wakes the pending poll; nil if there is none
	heartbeat    time.Duration // when a ping is to be sent or, awaitingPong, when it is too late for the pong
	deadline     time.Duration // of SetDeadline; 0 if there is none
	sent         uint64        // packets queued, but pings
	pinged       uint32        // the low bits of sent, at the last ping
	confirmed    uint32        // pinged, at the last pong that answered a ping
	reason       string
}

// wsConn is a WebSocket's connection, and the non-blocking way to it if it has one.
type wsConn struct {
	nc  net.Conn
	raw syscall.RawConn
}

// closeWrite ends the stream after all that was written.
func (ws wsConn) closeWrite() {
	if half, ok := ws.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // If it fails the connection is gone, which is what was wanted.
		return
	}
	_ = ws.nc.Close()
}

// ID returns the session id, a secret between the client and the server: whoever knows it can poll in the client's name.
func (c *Conn) ID() string { return c.id }

// RemoteAddr returns the address of the client's first request, as net/http gave it.
func (c *Conn) RemoteAddr() string { return c.remote }

// Transport returns "websocket" or "polling".
func (c *Conn) Transport() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ws.nc != nil {
		return "websocket"
	}
	return "polling"
}

// Send queues f to be written. It never blocks. A queue that would exceed Options.QueueBytesMax closes the connection.
// Errors: [ErrClosed].
func (c *Conn) Send(f *Frame) error {
	c.mu.Lock()
	if c.state > stateOpen {
		c.mu.Unlock()
		return ErrClosed
	}
	fits := c.push(f)
	c.wakeWriter()
	c.mu.Unlock()
	return c.cutIfFull(fits)
}

// SendAll is [Conn.Send] for frames between which no other may come, such as a message with its attachments.
func (c *Conn) SendAll(frames []*Frame) error {
	c.mu.Lock()
	if c.state > stateOpen {
		c.mu.Unlock()
		return ErrClosed
	}
	fits := true
	for _, f := range frames {
		fits = fits && c.push(f)
	}
	c.wakeWriter()
	c.mu.Unlock()
	return c.cutIfFull(fits)
}

func (c *Conn) cutIfFull(fits bool) error {
	if fits {
		return nil
	}
	c.shard.counts.slow.Add(1)
	c.abort(ReasonSlow)
	return ErrClosed
}

// Close closes the connection after what is queued has been written. The official client comes back after it.
func (c *Conn) Close() { c.CloseFor(ReasonForcedClose) }

// CloseFor is [Conn.Close] with a reason for the session.
func (c *Conn) CloseFor(reason string) { c.close(reason, wsClose) }

// close ends the connection in order: no more is taken, what is queued is written, then last. The session hears of it
// from the goroutine that reads the connection, or from a new one.
func (c *Conn) close(reason string, last *Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= stateClosing {
		return
	}
	opening := c.state == stateOpening
	c.leaveOpen(stateClosing, reason)
	if c.ws.nc != nil {
		c.queue = append(c.queue, last)
		c.queueBytes += len(last.wire)
		_ = c.ws.nc.SetReadDeadline(past) // It wakes the reader; if it fails the reader is awake already.
	} else {
		c.heartbeat, c.deadline = c.srv.now()+c.srv.opts.FirstPollTimeout, 0 // A poll may yet hear of it.
		c.shard.wheel.put(c, c.heartbeat)
	}
	if !opening {
		c.wakeWriter()
	}
}

// abort ends the connection at once, with all that is queued.
func (c *Conn) abort(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return
	}
	if c.state == stateClosing {
		c.state = stateClosed
		c.shard.wheel.remove(c)
	} else {
		c.leaveOpen(stateClosed, reason)
	}
	c.queue, c.queueBytes = nil, 0
	if c.ws.nc != nil {
		_ = c.ws.nc.Close() // The reader finds it closed.
		return
	}
	c.wakeWriter()
	c.shard.forget(c)
}

// leaveOpen moves to a state of ending, which happens once. Called with mu held.
func (c *Conn) leaveOpen(state uint8, reason string) {
	c.state, c.reason = state, reason
	c.shard.wheel.remove(c)
	switch {
	case c.candidate == nil:
	case c.probed && state == stateClosing:
		// The client waits for the end of its last poll, to go on over the WebSocket. Official ones hear of the end only there.
		_ = c.candidate.SetReadDeadline(time.Now().Add(farewell)) // If it fails its reader is awake already.
	default:
		_ = c.candidate.Close() // Its reader finds it closed.
	}
	if c.ws.nc != nil {
		c.shard.counts.websockets.Add(-1)
		return
	}
	c.shard.counts.pollings.Add(-1)
	go c.finish()
}

// finish tells the session that the connection has ended.
func (c *Conn) finish() {
	defer c.srv.conns.Done()
	c.dispatch.Lock()
	defer c.dispatch.Unlock()
	defer c.recoverPanic()
	c.session.Close(c.reason)
}

// Go runs fn in a goroutine of its own when the session is not running, as if it were one of its methods.
// It does not run if the connection has been released meanwhile.
func (c *Conn) Go(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= stateClosing {
		return
	}
	c.srv.conns.Go(func() {
		c.dispatch.Lock()
		defer c.dispatch.Unlock()
		defer c.recoverPanic()
		fn()
	})
}

// recoverPanic turns a panic of the session into the end of its connection.
func (c *Conn) recoverPanic() {
	cause := recover()
	if cause == nil {
		return
	}
	c.shard.counts.panics.Add(1)
	c.srv.opts.Logger.Error("engineio: session panicked", "remote", c.remote, "panic", cause, "stack", string(debug.Stack()))
	c.close(ReasonPanic, wsClose)
}

// opened lets the connection be written to, after the open packet.
func (c *Conn) opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateOpening {
		c.state = stateOpen
		c.heartbeat = c.srv.now() + c.srv.opts.PingInterval
		c.unpolled = c.ws.nc == nil
		c.putInWheel()
	} else if c.state == stateClosing && c.ws.nc != nil && !c.scheduled {
		c.scheduled = true
		c.shard.schedule(c)
	}
	if len(c.queue) > 0 {
		c.wakeWriter()
	}
}

// receive handles one packet of the client, a text or the data of a binary message, and reports whether to go on reading.
func (c *Conn) receive(data []byte, binary bool) bool {
	c.shard.counts.packetsIn.Add(1)
	c.shard.counts.bytesIn.Add(int64(len(data)))
	if binary {
		return c.deliver(data, true)
	}
	if len(data) == 0 {
		return c.malformed()
	}
	switch data[0] {
	case packetMessage:
		return c.deliver(data[1:], false)
	case packetPong:
		c.pong()
		return true
	case packetNoop, packetUpgrade:
		return true // As the official server: without meaning here, and harmless.
	case packetClose:
		c.close(ReasonTransportClose, wsClose)
		return false
	case packetPing:
		// In protocol 4 only the server pings.
		c.breach(ReasonTransportError)
		return false
	default:
		return c.malformed()
	}
}

// malformed ends the connection for a packet that is none.
func (c *Conn) malformed() bool {
	c.shard.counts.parseErrors.Add(1)
	c.breach(ReasonParseError)
	return false
}

// breach ends the connection of a client that broke the rules: over WebSocket in order, while polling at once, as the official server does.
func (c *Conn) breach(reason string) {
	if c.Transport() == "websocket" {
		c.close(reason, wsClose)
		return
	}
	c.abort(reason)
}

// deliver calls the session, unless the connection has ended, and reports whether it goes on.
func (c *Conn) deliver(data []byte, binary bool) bool {
	c.dispatch.Lock()
	defer c.dispatch.Unlock()
	defer c.recoverPanic()
	if !c.handling() {
		return false
	}
	c.session.Message(data, binary)
	return true
}

// handling notes that a message is being handled, and reports whether the connection is open.
func (c *Conn) handling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.excuse == excuseNone {
		c.excuse = excuseHandled
	}
	return c.state <= stateOpen
}

func (c *Conn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state <= stateOpen
}
