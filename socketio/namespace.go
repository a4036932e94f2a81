package socketio

import (
	"slices"
	"sync"
)

// A Namespace is what clients connect to by name. Its On functions are called before the server serves; each replaces the one before.
type Namespace struct {
	name string

	onAuth       func(*Handshake) error
	onConnect    func(*Socket)
	onEvent      func(*Socket, *Event)
	onDisconnect func(*Socket, string)

	mu      sync.RWMutex
	sockets map[string]*Socket
	rooms   map[string]*room // those that have a member
}

// A room is a set of sockets. Guarded by the namespace's mu, as are its sockets' memberships.
type room struct {
	name    string
	members []*Socket
}

// A membership says where in a room a socket stands.
type membership struct {
	room *room
	at   int
}

func newNamespace(name string) *Namespace {
	return &Namespace{name: name, sockets: map[string]*Socket{}, rooms: map[string]*room{}}
}

// Name returns the name, such as "/".
func (n *Namespace) Name() string { return n.name }

// OnAuth sets what decides who may connect. An error refuses: the client gets a connect_error with its text, so it should be a *[ConnectError].
func (n *Namespace) OnAuth(auth func(*Handshake) error) { n.onAuth = auth }

// OnConnect sets what is called for each new socket, before any of its events.
func (n *Namespace) OnConnect(connect func(*Socket)) { n.onConnect = connect }

// OnEvent sets what is called for each event of a client, in the order sent.
func (n *Namespace) OnEvent(event func(*Socket, *Event)) { n.onEvent = event }

// OnDisconnect sets what is called once for each socket at its end, with a reason of this package or of engineio.
func (n *Namespace) OnDisconnect(disconnect func(s *Socket, reason string)) {
	n.onDisconnect = disconnect
}

// Len returns how many sockets are connected.
func (n *Namespace) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.sockets)
}

// Sockets returns those that are connected, in no order.
func (n *Namespace) Sockets() []*Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	sockets := make([]*Socket, 0, len(n.sockets))
	for _, s := range n.sockets {
		sockets = append(sockets, s)
	}
	return sockets
}

// Socket returns the socket with this id, or nil if none is connected that has it.
func (n *Namespace) Socket(id string) *Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.sockets[id]
}

// add makes s one of the namespace's, with its own id unless that is empty or another's, and calls answer before anything can be sent to it.
func (n *Namespace) add(s *Socket, answer func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.id == "" || n.sockets[s.id] != nil {
		s.id = newSocketID()
	}
	answer()
	n.sockets[s.id] = s
}

func (n *Namespace) remove(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.sockets, s.id)
	for _, m := range s.rooms {
		n.leave(s, m)
	}
	s.rooms = nil
}

// Join adds the socket to a room of its namespace; it is no error if it is there already. A socket that is disconnected joins nothing.
func (s *Socket) Join(name string) {
	n := s.ns
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[s.id] != s {
		return
	}
	r := n.rooms[name]
	if r == nil {
		r = &room{name: name}
		n.rooms[name] = r
	}
	if s.indexOf(r) < 0 {
		s.rooms = append(s.rooms, membership{r, len(r.members)})
		r.members = append(r.members, s)
	}
}

// Leave takes the socket out of a room; it is no error if it is not in it.
func (s *Socket) Leave(name string) {
	n := s.ns
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.rooms[name]
	if r == nil {
		return
	}
	if i := s.indexOf(r); i >= 0 {
		n.leave(s, s.rooms[i])
		s.rooms = slices.Delete(s.rooms, i, i+1)
	}
}

// Rooms returns the names of the rooms that the socket is in.
func (s *Socket) Rooms() []string {
	s.ns.mu.RLock()
	defer s.ns.mu.RUnlock()
	names := make([]string, len(s.rooms))
	for i, m := range s.rooms {
		names[i] = m.room.name
	}
	return names
}

// indexOf returns where in the socket's memberships r stands, or -1. Called with the namespace's mu held.
func (s *Socket) indexOf(r *room) int {
	return slices.IndexFunc(s.rooms, func(m membership) bool { return m.room == r })
}

// leave takes s out of the members of a room, whose last takes its place. Called with mu held.
func (n *Namespace) leave(s *Socket, m membership) {
	r := m.room
	last := len(r.members) - 1
	if moved := r.members[last]; moved != s {
		r.members[m.at] = moved
		moved.rooms[moved.indexOf(r)].at = m.at
	}
	r.members[last] = nil
	r.members = r.members[:last]
	if last == 0 {
		delete(n.rooms, r.name)
	}
}

// A Target is a choice of the sockets of a namespace.
type Target struct {
	ns            *Namespace
	rooms, except []string
}

// To returns the sockets of any of the rooms. The id of a socket is also a name for it alone.
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
	n := t.ns
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch {
	case len(t.rooms) == 1 && len(t.except) == 0:
		for _, s := range n.members(t.rooms[0]) {
			_ = s.Send(p) // One that has gone needs nothing.
		}
	case len(t.rooms) == 0 && len(t.except) == 0:
		for _, s := range n.sockets {
			_ = s.Send(p) // As above.
		}
	default:
		done := map[*Socket]bool{}
		for _, name := range t.except {
			for _, s := range n.members(name) {
				done[s] = true
			}
		}
		send := func(s *Socket) {
			if !done[s] {
				done[s] = true
				_ = s.Send(p) // As above.
			}
		}
		for _, name := range t.rooms {
			for _, s := range n.members(name) {
				send(s)
			}
		}
		if len(t.rooms) == 0 {
			for _, s := range n.sockets {
				send(s)
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
