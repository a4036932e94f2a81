package socketio

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Namespace is what clients connect to by name. Its On functions are called before the server serves; each replaces the one before.
type Namespace struct {
	name string
	*handlers
	family *Family // nil if it is no child

	replyBytesMax int
	lastAck       atomic.Int64 // id of an acknowledgement that one or many sockets owe
	users         int          // sockets, and clients that are about to have one; of a child alone, guarded by Server.mu

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

// handlers are what a namespace calls, or all of a family.
type handlers struct {
	onAuth       func(*Handshake) error
	onConnect    func(*Socket)
	onEvent      func(*Socket, *Event)
	onDisconnect func(*Socket, string)
}

func newNamespace(name string, h *handlers) *Namespace {
	return &Namespace{name: name, handlers: h, sockets: map[string]*Socket{}, rooms: map[string]*room{}}
}

// Name returns the name, such as "/".
func (n *Namespace) Name() string { return n.name }

// OnAuth sets what decides who may connect. An error refuses: the client gets a connect_error with its text, so it should be a *[ConnectError].
func (h *handlers) OnAuth(auth func(*Handshake) error) { h.onAuth = auth }

// OnConnect sets what is called for each new socket, before any of its events.
func (h *handlers) OnConnect(connect func(*Socket)) { h.onConnect = connect }

// OnEvent sets what is called for each event of a client, in the order sent.
func (h *handlers) OnEvent(event func(*Socket, *Event)) { h.onEvent = event }

// OnDisconnect sets what is called once for each socket at its end, with a reason of this package or of engineio. The socket has left its rooms.
func (h *handlers) OnDisconnect(disconnect func(s *Socket, reason string)) {
	h.onDisconnect = disconnect
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
