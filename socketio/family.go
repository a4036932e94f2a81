package socketio

import "slices"

// A Family is a set of namespaces that are made when a client asks for one, by a function that knows their names. They share the handlers of
// the family, whose On functions are called before the server serves, and have none of their own. A child exists from its first socket to its
// last: what is to be sent to it later begins with [Family.Child].
type Family struct {
	*handlers
	match    func(name string) bool
	children map[string]*Namespace // guarded by Server.mu
	srv      *Server
}

// OfFunc returns the family of the namespaces for whose names match returns true, but those that [Server.Of] made and those of families that
// were made before. match is called for what clients ask for, up to 255 bytes that begin with a slash, and from any goroutine. Beyond
// Options.FamilyNamespacesMax children clients get the connect_error "Too many namespaces".
func (s *Server) OfFunc(match func(name string) bool) *Family {
	f := &Family{handlers: &handlers{}, match: match, children: map[string]*Namespace{}, srv: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = append(slices.Clip(s.families), f)
	return f
}

// Child returns the child with this name, or nil if it has no socket.
func (f *Family) Child(name string) *Namespace {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	return f.children[name]
}

// Children returns all children, in no order.
func (f *Family) Children() []*Namespace {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	children := make([]*Namespace, 0, len(f.children))
	for _, ns := range f.children {
		children = append(children, ns)
	}
	return children
}

// Emit sends an event to every socket of every child; it is encoded once for each child. Errors: those of [NewPacket].
func (f *Family) Emit(event string, args ...any) error {
	for _, ns := range f.Children() {
		if err := ns.Emit(event, args...); err != nil {
			return err
		}
	}
	return nil
}

// acquire returns the namespace with this name for a client that asks for it, who releases it if nothing comes of it, else at the end of its
// socket. Errors: a *ConnectError.
func (s *Server) acquire(name string) (*Namespace, error) {
	s.mu.Lock()
	ns, families := s.namespaces[name], s.families
	if ns != nil {
		ns.users++
	}
	s.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	i := slices.IndexFunc(families, func(f *Family) bool { return f.match(name) })
	if i < 0 {
		return nil, &ConnectError{Message: "Invalid namespace"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns = s.namespaces[name]; ns == nil { // Nobody made it meanwhile.
		if s.children >= s.opts.FamilyNamespacesMax {
			return nil, &ConnectError{Message: "Too many namespaces"}
		}
		f := families[i]
		ns = s.newNamespace(name, f.handlers)
		ns.family = f
		f.children[name] = ns
		s.children++
	}
	ns.users++
	return ns, nil
}

// release takes back what acquire gave. A child that nobody uses any more is forgotten.
func (s *Server) release(ns *Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns.users--
	if ns.users == 0 && ns.family != nil {
		delete(s.namespaces, ns.name)
		delete(ns.family.children, ns.name)
		s.children--
	}
}
