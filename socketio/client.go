package socketio

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"parley/engineio"
)

// A client is one connection, with a socket for each namespace that it has joined. It is the session of the engine, so that its methods
// Message and Close run one at a time.
type client struct {
	srv     *Server
	conn    *engineio.Conn
	request request

	// Of the session alone.
	pending *pendingPacket // whose attachments are still to come
	joined  bool           // has joined a namespace once

	mu      sync.Mutex
	sockets []*Socket
}

// A pendingPacket waits for its attachments.
type pendingPacket struct {
	packet      received
	attachments [][]byte
	sizeBytes   int
}

// Message handles one message of the engine: a packet, or an attachment.
func (c *client) Message(data []byte, binary bool) {
	var err error
	if binary {
		err = c.attach(data)
	} else {
		err = c.packet(data)
	}
	if err != nil {
		c.conn.CloseFor(engineio.ReasonParseError)
	}
}

// Close tells every socket that the connection has ended.
func (c *client) Close(reason string) {
	if reason == engineio.ReasonForcedClose {
		reason = ReasonForcedClose
	}
	c.mu.Lock()
	sockets := append([]*Socket(nil), c.sockets...)
	c.mu.Unlock()
	for _, s := range sockets {
		s.end(reason)
		s.tellEnd()
	}
}

func (c *client) packet(data []byte) error {
	if c.pending != nil {
		return errMalformed // An attachment was to come.
	}
	p, err := parsePacket(data, c.srv.opts.AttachmentsMax)
	if err != nil {
		return err
	}
	s := c.socket(p.namespace)
	if s != nil && !s.Connected() {
		s.tellEnd() // The server disconnected it; what it would yet say of that is said now.
		s = nil
	}
	switch {
	case p.kind == packetConnect:
		if s != nil {
			return errMalformed // It is connected already.
		}
		return c.connect(p)
	case p.kind == packetConnectError:
		return errMalformed // Only a server says that.
	case s == nil && !c.joined:
		return errMalformed
	}
	if p.attachments == 0 {
		// The data outlives the buffer that it came in: handlers may keep it.
		p.data = append(make([]byte, 0, len(p.data)), p.data...)
		return c.handle(s, p, nil)
	}
	// Attachments are not waited for on behalf of what will be refused.
	if _, ok := splitArray(nil, p.data, c.srv.opts.ArgsMax+1); !ok {
		return errMalformed
	}
	// What is kept until they are here outlives the buffer.
	p.namespace = append(make([]byte, 0, len(p.namespace)), p.namespace...)
	p.data = append(make([]byte, 0, len(p.data)), p.data...)
	c.pending = &pendingPacket{packet: p}
	c.conn.SetDeadline(c.srv.opts.AttachmentTimeout)
	return nil
}

// attach adds an attachment to the packet that waits for it.
func (c *client) attach(data []byte) error {
	w := c.pending
	if w == nil {
		return errMalformed
	}
	if w.sizeBytes += len(data); w.sizeBytes > c.srv.opts.AttachmentBytesMax {
		return errMalformed
	}
	w.attachments = append(w.attachments, append([]byte{}, data...))
	if len(w.attachments) < w.packet.attachments {
		return nil
	}
	c.pending = nil
	c.conn.SetDeadline(0)
	return c.handle(c.socket(w.packet.namespace), w.packet, w.attachments)
}

// handle gives a whole packet to its socket, which is nil if the server has disconnected it while the packet was under way.
func (c *client) handle(s *Socket, p received, attachments [][]byte) error {
	switch p.kind {
	case packetDisconnect:
		if len(p.data) > 0 {
			return errMalformed
		}
		if s != nil && s.end(ReasonClientDisconnect) {
			s.tellEnd()
		}
		return nil
	case packetEvent, packetBinaryEvent:
		return c.event(s, p, attachments)
	default:
		args, ok := splitArray(nil, p.data, c.srv.opts.ArgsMax)
		if !ok || p.id == noAck || !placeholdersFit(p, attachments) {
			return errMalformed
		}
		if s != nil {
			s.acked(p.id, inline(args, attachments))
		}
		return nil
	}
}

func placeholdersFit(p received, attachments [][]byte) bool {
	return p.attachments == 0 || placeholdersValid(p.data, len(attachments))
}

// event calls the namespace's handler for an event.
func (c *client) event(s *Socket, p received, attachments [][]byte) error {
	e := &Event{Attachments: attachments, socket: s, id: p.id}
	elements, ok := splitArray(e.room[:0], p.data, c.srv.opts.ArgsMax+1)
	if !ok || len(elements) == 0 || !placeholdersFit(p, attachments) {
		return errMalformed
	}
	e.Name, ok = eventName(elements[0])
	if !ok || len(e.Name) > c.srv.opts.EventNameBytesMax || reserved(e.Name) {
		return errMalformed
	}
	e.Args = elements[1:]
	if s != nil && s.Connected() && s.ns.onEvent != nil {
		s.ns.onEvent(s, e)
	}
	return nil
}

// eventName returns the name that an event's first element is: a string or, as the official server allows, a number, as it was written.
func eventName(element json.RawMessage) (name string, ok bool) {
	if c := element[0]; c == '-' || c >= '0' && c <= '9' {
		return string(element), true
	}
	return stringValue(element)
}

// connect joins the client to a namespace (protocol 5, "Connection to a namespace").
func (c *client) connect(p received) error {
	if p.id != noAck || len(p.data) > 0 && !isObject(p.data) {
		return errMalformed
	}
	c.mu.Lock()
	full := len(c.sockets) >= c.srv.opts.NamespacesMax
	c.mu.Unlock()
	if full {
		return errMalformed
	}
	name := string(p.namespace)
	ns, err := c.srv.acquire(name)
	if err != nil {
		return c.refuse(name, err)
	}
	unused := true
	defer func() {
		if unused {
			c.srv.release(ns) // OnAuth panicked.
		}
	}()
	h := c.request.handshake(c.conn)
	h.SocketID = newSocketID()
	if len(p.data) > 0 {
		h.setAuth(p.data)
	}
	if ns.onAuth != nil {
		if err := ns.onAuth(h); err != nil {
			unused = false
			c.srv.release(ns) // Before the client hears of it.
			return c.refuse(name, err)
		}
	}
	s := &Socket{ns: ns, client: c, id: h.SocketID, data: h.Data}
	unused = false
	c.mu.Lock()
	c.sockets = append(c.sockets, s)
	c.mu.Unlock()
	if !c.joined {
		c.joined = true
		c.conn.SetDeadline(0)
	}
	ns.add(s, func() {
		_ = c.conn.Send(encodeData(packetConnect, name, noAck, connectData(s.id, h.GivePID))) // If it has closed, Close follows.
	})
	if ns.onConnect != nil {
		ns.onConnect(s)
	}
	return nil
}

// connectData returns what the answer to a CONNECT holds.
func connectData(sid, pid string) []byte {
	data := append([]byte(`{"sid":`), quote(sid)...)
	if pid != "" {
		data = append(append(data, `,"pid":`...), quote(pid)...)
	}
	return append(data, '}')
}

// refuse answers a CONNECT with a CONNECT_ERROR. A client of the official kind gets it as connect_error.
func (c *client) refuse(namespace string, err error) error {
	answer := struct {
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{Message: err.Error()}
	var refusal *ConnectError
	if errors.As(err, &refusal) {
		answer.Message, answer.Data = refusal.Message, refusal.Data
	}
	data, _, err := encodeArg(answer, 0)
	if err != nil {
		answer.Data = nil
		data, _, _ = encodeArg(answer, 0) // Of a string it cannot fail.
	}
	_ = c.conn.Send(encodeData(packetConnectError, namespace, noAck, data)) // If it has closed, Close follows.
	return nil
}

// socket returns the client's socket in a namespace, or nil.
func (c *client) socket(namespace []byte) *Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sockets {
		if s.ns.name == string(namespace) {
			return s
		}
	}
	return nil
}

// remove takes s off the list and reports whether it stood there.
func (c *client) remove(s *Socket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.sockets, s)
	if i < 0 {
		return false
	}
	c.sockets = slices.Delete(c.sockets, i, i+1)
	return true
}
