package socketio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// acksPendingMax bounds the acknowledgements that a socket may owe at a time.
const acksPendingMax = 1024

var (
	// ErrDisconnected is the error of sending to a socket that is no longer connected.
	ErrDisconnected = errors.New("socketio: socket is disconnected")
	// ErrAcked is the error of a second acknowledgement.
	ErrAcked = errors.New("socketio: event is acknowledged already")
	// ErrAcksPending is the error of asking for too many acknowledgements at a time.
	ErrAcksPending = errors.New("socketio: too many acknowledgements are pending")
)

// A Socket is a client in a namespace. All methods may be called from any goroutine.
type Socket struct {
	ns     *Namespace
	client *client
	id     string

	rooms []membership // guarded by ns.mu

	mu     sync.Mutex
	data   any
	ended  atomic.Bool // set with mu held, and read without by each delivery
	reason string
	acks   []pendingAck
}

// A pendingAck is an acknowledgement that the client owes. to has room for it.
type pendingAck struct {
	id int64
	to chan<- answer
}

// An answer is an acknowledgement, or says that none will come.
type answer struct {
	socket *Socket
	args   []json.RawMessage
	gone   bool // the socket has ended
}

func (a answer) size() int {
	n := 0
	for _, arg := range a.args {
		n += len(arg)
	}
	return n
}

func newSocketID() string {
	var id [15]byte
	_, _ = rand.Read(id[:]) // It never fails.
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// ID returns the socket's id, which the client knows as socket.id. It is unique among those connected, and not secret.
func (s *Socket) ID() string { return s.id }

// Namespace returns the namespace of the socket.
func (s *Socket) Namespace() *Namespace { return s.ns }

// RemoteAddr returns the address of the connection's first request, as net/http gave it.
func (s *Socket) RemoteAddr() string { return s.client.conn.RemoteAddr() }

// Transport returns "websocket" or "polling".
func (s *Socket) Transport() string { return s.client.conn.Transport() }

// Connected reports whether the socket is still in its namespace.
func (s *Socket) Connected() bool {
	return !s.ended.Load()
}

// SetData keeps a value with the socket.
func (s *Socket) SetData(data any) {
	s.mu.Lock()
	s.data = data
	s.mu.Unlock()
}

// Data returns the value last given to SetData, or by OnAuth in Handshake.Data.
func (s *Socket) Data() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data
}

// Emit encodes an event and sends it. Errors: those of [NewPacket] and [Socket.Send].
func (s *Socket) Emit(event string, args ...any) error {
	p, err := NewPacket(s.ns.name, event, args...)
	if err != nil {
		return err
	}
	return s.Send(p)
}

// Send queues a packet of the socket's namespace. It never blocks; a client that does not take what it is sent is disconnected
// (see engineio.Options). Errors: [ErrDisconnected].
func (s *Socket) Send(p *Packet) error {
	if p.namespace != s.ns.name {
		panic("socketio: packet of another namespace")
	}
	if !s.Connected() || p.sendTo(s.client.conn) != nil {
		return ErrDisconnected
	}
	return nil
}

// Sent returns how many packets have been queued for the client since its connection began, those of its other sockets included, and how
// many of them it has certainly received. See [engineio.Conn.Sent].
func (s *Socket) Sent() (sent, confirmed uint64) { return s.client.conn.Sent() }

// Ping has what was sent so far confirmed soon. See [engineio.Conn.Ping].
func (s *Socket) Ping() { s.client.conn.Ping() }

// EmitWithAck sends an event and waits for the client's acknowledgement, whose arguments it returns; those that are binary come as
// base64 strings, which encoding/json decodes to []byte. It waits for as long as ctx lets it: give that a deadline, since a client need not
// answer. Never call it from a handler of the same connection: the acknowledgement would wait for the handler to return. Errors: ctx's,
// [ErrDisconnected], [ErrAcksPending], those of [NewPacket].
func (s *Socket) EmitWithAck(ctx context.Context, event string, args ...any) ([]json.RawMessage, error) {
	id := s.ns.lastAck.Add(1)
	p, err := newPacket(packetEvent, s.ns.name, id, event, args)
	if err != nil {
		return nil, err
	}
	answers := make(chan answer, 1)
	if err := s.owe(id, answers); err != nil {
		return nil, err
	}
	defer s.takeAck(id)
	if err := s.Send(p); err != nil {
		return nil, err
	}
	select {
	case a := <-answers:
		if a.gone {
			return nil, ErrDisconnected
		}
		return a.args, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// owe notes that the client owes an acknowledgement. Errors: [ErrDisconnected], [ErrAcksPending].
func (s *Socket) owe(id int64, to chan<- answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended.Load():
		return ErrDisconnected
	case len(s.acks) >= acksPendingMax:
		return ErrAcksPending
	}
	s.acks = append(s.acks, pendingAck{id, to})
	return nil
}

// takeAck removes and returns what waits for an acknowledgement, or nil.
func (s *Socket) takeAck(id int64) chan<- answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.acks, func(a pendingAck) bool { return a.id == id })
	if i < 0 {
		return nil
	}
	to := s.acks[i].to
	s.acks = slices.Delete(s.acks, i, i+1)
	return to
}

// acked hands an acknowledgement to who waits for it. One that nobody asked for, or waits for any more, is ignored.
func (s *Socket) acked(id int64, args []json.RawMessage) {
	if to := s.takeAck(id); to != nil {
		to <- answer{socket: s, args: args}
	}
}

// Disconnect ends the socket. With closeTransport false the client gets a DISCONNECT packet: an official client does not come back. With
// true the whole connection is closed, after what is queued has been written, without a DISCONNECT, and the client does come back. There the
// official server sends one to every socket first, so that nobody comes back; for that, call Disconnect(false) and then Disconnect(true).
// OnDisconnect follows, when no handler of the connection runs.
func (s *Socket) Disconnect(closeTransport bool) {
	conn := s.client.conn
	if closeTransport {
		conn.Close()
		s.end(ReasonForcedClose)
		return
	}
	if s.end(ReasonServerDisconnect) {
		_ = conn.Send(encodeData(packetDisconnect, s.ns.name, noAck, nil)) // If it has closed there is no one to tell.
		conn.Go(s.tellEnd)
	}
}

// end takes the socket out of its namespace, and reports whether it was in it. OnDisconnect is left to tellEnd.
func (s *Socket) end(reason string) bool {
	s.mu.Lock()
	if s.ended.Load() {
		s.mu.Unlock()
		return false
	}
	s.reason = reason
	s.ended.Store(true)
	acks := s.acks
	s.acks = nil
	s.mu.Unlock()
	for _, a := range acks {
		a.to <- answer{socket: s, gone: true}
	}
	s.ns.remove(s)
	s.client.srv.release(s.ns)
	return true
}

// tellEnd calls OnDisconnect, once. Called by the session of the connection.
func (s *Socket) tellEnd() {
	if s.client.remove(s) && s.ns.onDisconnect != nil {
		s.ns.onDisconnect(s, s.reason)
	}
}

// An Event is what a client sent.
type Event struct {
	// Name is the event's name.
	Name string
	// Args are the arguments after the name, each valid JSON. Where one holds binary data it has a placeholder; see Attachment.
	Args []json.RawMessage
	// Attachments is the binary data, in the order of the placeholders' numbers.
	Attachments [][]byte

	socket *Socket
	id     int64
	acked  atomic.Bool
	room   [3]json.RawMessage // for the name and most arguments
}

// Attachment returns the binary data that argument i is; ok is false if it is none, or there is no such argument.
func (e *Event) Attachment(i int) (data []byte, ok bool) {
	if i < 0 || i >= len(e.Args) {
		return nil, false
	}
	return attachmentOf(e.Args[i], e.Attachments)
}

// WantsAck reports whether the client asked for an acknowledgement.
func (e *Event) WantsAck() bool { return e.id != noAck }

// Ack acknowledges the event, with arguments as in [NewPacket]. It may be called from any goroutine and after the handler has returned, once.
// If the client asked for no acknowledgement nothing is sent. Errors: [ErrAcked], [ErrDisconnected], an argument that JSON cannot hold,
// after which another Ack may follow.
func (e *Event) Ack(args ...any) error {
	if !e.WantsAck() {
		return nil
	}
	p, err := newPacket(packetAck, e.socket.ns.name, e.id, "", args)
	if err != nil {
		return err
	}
	if !e.acked.CompareAndSwap(false, true) {
		return ErrAcked
	}
	return e.socket.Send(p)
}

// AckBinary is [Event.Ack] with arguments and attachments as in [NewBinaryPacket].
func (e *Event) AckBinary(jsonArgs []json.RawMessage, attachments [][]byte) error {
	if !e.WantsAck() {
		return nil
	}
	p, err := newBinaryPacket(packetAck, e.socket.ns.name, e.id, nil, jsonArgs, attachments)
	if err != nil {
		return err
	}
	if !e.acked.CompareAndSwap(false, true) {
		return ErrAcked
	}
	return e.socket.Send(p)
}

// AckRaw is [Event.Ack] with the arguments as one encoded JSON array, such as `[{"ok":true}]`. It does not test it.
func (e *Event) AckRaw(jsonArgs []byte) error {
	if !e.WantsAck() {
		return nil
	}
	if !e.acked.CompareAndSwap(false, true) {
		return ErrAcked
	}
	if !e.socket.Connected() || e.socket.client.conn.Send(encodeData(packetAck, e.socket.ns.name, e.id, jsonArgs)) != nil {
		return ErrDisconnected
	}
	return nil
}
