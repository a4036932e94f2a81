package socketio

import (
	"context"
	"encoding/json"
	"slices"
)

// A Target is a choice of the sockets of a namespace.
type Target struct {
	ns            *Namespace
	rooms, except []string
}

// To returns the sockets of any of the rooms, without one all sockets. The id of a socket is also a name for it alone, so that what a socket
// sends to the others is sent to Except(s.ID()).
func (n *Namespace) To(rooms ...string) Target { return Target{ns: n, rooms: rooms} }

// Except returns all sockets but those of any of the rooms.
func (n *Namespace) Except(rooms ...string) Target { return Target{ns: n, except: rooms} }

// Except returns the target without the sockets of any of the rooms.
func (t Target) Except(rooms ...string) Target {
	t.except = append(slices.Clip(t.except), rooms...)
	return t
}

// Emit encodes an event once and sends it to every socket of the namespace. Errors: those of [NewPacket].
func (n *Namespace) Emit(event string, args ...any) error { return Target{ns: n}.Emit(event, args...) }

// Send sends a packet to every socket of the namespace.
func (n *Namespace) Send(p *Packet) { Target{ns: n}.Send(p) }

// Emit encodes an event once and sends it to every socket of the target. Errors: those of [NewPacket].
func (t Target) Emit(event string, args ...any) error {
	p, err := NewPacket(t.ns.name, event, args...)
	if err != nil {
		return err
	}
	t.Send(p)
	return nil
}

// Send sends a packet to every socket of the target, to each once. It never blocks.
func (t Target) Send(p *Packet) {
	t.each(func(s *Socket) {
		_ = s.Send(p) // One that has gone needs nothing.
	})
}

// Sockets returns those of the target, in no order.
func (t Target) Sockets() []*Socket {
	var sockets []*Socket
	t.each(func(s *Socket) { sockets = append(sockets, s) })
	return sockets
}

// Join adds the sockets of the target to a room.
func (t Target) Join(room string) {
	for _, s := range t.Sockets() {
		s.Join(room)
	}
}

// Leave takes the sockets of the target out of a room.
func (t Target) Leave(room string) {
	for _, s := range t.Sockets() {
		s.Leave(room)
	}
}

// Disconnect is [Socket.Disconnect] for the sockets of the target.
func (t Target) Disconnect(closeTransport bool) {
	for _, s := range t.Sockets() {
		s.Disconnect(closeTransport)
	}
}

// A Reply is the acknowledgement of one socket.
type Reply struct {
	Socket *Socket
	// Args are its arguments, as [Socket.EmitWithAck] returns them.
	Args []json.RawMessage
}

// EmitWithAck encodes an event once, sends it to every socket of the target, and collects their acknowledgements, in the order in which they
// come, until all have answered or gone, or ctx ends. missing is how many have not answered: each socket is counted that went, or was not
// asked since it owes too many acknowledgements, or whose answer exceeds what Options.ReplyBytesMax leaves. Never call it from a handler of
// a socket that is asked. Errors: those of [NewPacket]; the end of ctx is none.
func (t Target) EmitWithAck(ctx context.Context, event string, args ...any) (replies []Reply, missing int, err error) {
	id := t.ns.lastAck.Add(1)
	p, err := newPacket(packetEvent, t.ns.name, id, event, args)
	if err != nil {
		return nil, 0, err
	}
	sockets := t.Sockets()
	answers := make(chan answer, len(sockets)) // Each answers once at most.
	defer func() {
		for _, s := range sockets {
			s.takeAck(id)
		}
	}()
	waiting := 0
	for _, s := range sockets {
		if s.owe(id, answers) == nil {
			waiting++
			_ = s.Send(p) // One that has gone answers as such.
		}
	}
	for room := t.ns.replyBytesMax; waiting > 0; waiting-- {
		var a answer
		select {
		case a = <-answers: // Those that are here count, whether ctx has ended or not.
		default:
			select {
			case a = <-answers:
			case <-ctx.Done():
				return replies, len(sockets) - len(replies), nil
			}
		}
		if room -= a.size(); !a.gone && room >= 0 {
			replies = append(replies, Reply{a.socket, a.args})
		}
	}
	return replies, len(sockets) - len(replies), nil
}

// each calls do for every socket of the target, once for each, with the namespace's mu held for reading.
func (t Target) each(do func(*Socket)) {
	n := t.ns
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch {
	case len(t.rooms) == 1 && len(t.except) == 0:
		for _, s := range n.members(t.rooms[0]) {
			do(s)
		}
	case len(t.rooms) == 0 && len(t.except) == 0:
		for _, s := range n.sockets {
			do(s)
		}
	default:
		done := map[*Socket]bool{}
		for _, name := range t.except {
			for _, s := range n.members(name) {
				done[s] = true
			}
		}
		once := func(s *Socket) {
			if !done[s] {
				done[s] = true
				do(s)
			}
		}
		for _, name := range t.rooms {
			for _, s := range n.members(name) {
				once(s)
			}
		}
		if len(t.rooms) == 0 {
			for _, s := range n.sockets {
				once(s)
			}
		}
	}
}

// members returns the sockets of a room, or the one socket with this id. Called with mu held.
func (n *Namespace) members(name string) []*Socket {
	if r := n.rooms[name]; r != nil {
		return r.members
	}
	if s := n.sockets[name]; s != nil {
		return []*Socket{s}
	}
	return nil
}
