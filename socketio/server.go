package socketio

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"

	"parley/engineio"
)

// Reasons for a disconnection, beside those of package engineio, in the words of the official server.
const (
	ReasonClientDisconnect = "client namespace disconnect" // the client left the namespace
	ReasonServerDisconnect = "server namespace disconnect" // Socket.Disconnect(false)
	ReasonForcedClose      = "forced server close"         // Socket.Disconnect(true)
)

// A Server answers the requests of Socket.IO clients. It is an http.Handler for Options.Engine.Path.
type Server struct {
	opts   Options
	engine *engineio.Server

	mu         sync.Mutex
	namespaces map[string]*Namespace // children of families included
	children   int                   // of these
	families   []*Family
}

// NewServer returns a server without a namespace; [Server.Of] makes them. [Server.Shutdown] ends its goroutines.
func NewServer(opts Options) *Server {
	s := &Server{opts: opts.withDefaults(), namespaces: map[string]*Namespace{}}
	s.engine = engineio.NewServer(s.opts.Engine, s.open)
	return s
}

// ServeHTTP answers the requests of the transports.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// Shutdown closes every connection, spread evenly over Options.Engine.ShutdownSpread, so that official clients connect again, to whoever
// serves then. It returns when they are gone, or ctx's error after it has cut what was left when ctx ended.
func (s *Server) Shutdown(ctx context.Context) error { return s.engine.Shutdown(ctx) }

// Stats returns what the engine has counted.
func (s *Server) Stats() engineio.Stats { return s.engine.Stats() }

// Of returns the namespace with this name, such as "/" or "/admin", which exists from the first call on. Clients that ask for any other
// get the connect_error "Invalid namespace", unless a [Family] has it.
func (s *Server) Of(name string) *Namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns := s.namespaces[name]
	if ns == nil {
		ns = s.newNamespace(name, &handlers{})
	}
	return ns
}

// newNamespace makes a namespace. Called with mu held.
func (s *Server) newNamespace(name string, h *handlers) *Namespace {
	ns := newNamespace(name, h)
	ns.replyBytesMax = s.opts.ReplyBytesMax
	s.namespaces[name] = ns
	return ns
}

// open makes the session of a new connection.
func (s *Server) open(conn *engineio.Conn, r *http.Request) engineio.Session {
	conn.SetDeadline(s.opts.ConnectTimeout)
	return &client{srv: s, conn: conn, request: s.keep(r)}
}

// A Handshake is what a client presents to a namespace.
type Handshake struct {
	// Auth is the "auth" of the client, a JSON object; nil if it gave none.
	Auth json.RawMessage
	// Header has those of Options.HandshakeHeaders that the first request of the connection had.
	Header http.Header
	// Query is that of the first request, without what belongs to the transport.
	Query url.Values
	// RemoteAddr is the address of the first request, as net/http gave it.
	RemoteAddr string
	// Time is when the client asked for the namespace.
	Time time.Time
	// PID and Offset are what an official client presents to recover the state of an earlier socket: the GivePID that it was given then, and
	// the last argument of the last event that it received, if that was a string. Both are members of Auth, too. One that is longer than
	// recoveryBytesMax, or no string, is left empty, as is one that was not presented.
	PID, Offset string

	// Data, if OnAuth sets it, becomes the data of the socket before OnConnect sees it.
	Data any
	// SocketID is the id that the socket will have. OnAuth may set that of an earlier one of this namespace, which has ended; while a socket is
	// connected that has it the new one gets an id of its own, and OnConnect sees which.
	SocketID string
	// GivePID, if OnAuth sets it, goes to the client with the CONNECT packet, as "pid". An official client presents it when it connects again,
	// and takes itself for recovered if it is given the PID that it presented.
	GivePID string
}

// recoveryBytesMax bounds Handshake.PID and Handshake.Offset.
const recoveryBytesMax = 8 << 10

// setAuth keeps the "auth" of the client, a JSON object, and finds in it what is to recover a state.
func (h *Handshake) setAuth(auth []byte) {
	h.Auth = append(json.RawMessage(nil), auth...)
	if !bytes.Contains(auth, []byte(`"pid"`)) {
		return
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(auth, &members) // It is a valid object.
	h.PID, h.Offset = recoveryValue(members["pid"]), recoveryValue(members["offset"])
}

func recoveryValue(value json.RawMessage) string {
	if len(value) == 0 || len(value) > recoveryBytesMax {
		return ""
	}
	s, _ := stringValue(value)
	return s
}

// A ConnectError refuses a namespace. The client gets it as connect_error, with Message and Data.
type ConnectError struct {
	Message string
	Data    any // JSON-encoded; nil: left out
}

func (e *ConnectError) Error() string { return e.Message }

// request is what is kept of a connection's first request, in little memory: most connections never look at it again.
type request struct {
	header []string // name, value, name, value
	query  string
}

func (s *Server) keep(r *http.Request) request {
	var kept request
	room := s.opts.HandshakeHeaderBytesMax
	for _, name := range s.opts.HandshakeHeaders {
		for _, value := range r.Header.Values(name) {
			if room -= len(value); room < 0 {
				break
			}
			kept.header = append(kept.header, name, value)
		}
	}
	query := r.URL.Query()
	for _, name := range []string{"EIO", "transport", "sid", "t", "b64"} {
		query.Del(name)
	}
	kept.query = query.Encode()
	return kept
}

func (r request) handshake(conn *engineio.Conn) *Handshake {
	h := &Handshake{Header: http.Header{}, RemoteAddr: conn.RemoteAddr(), Time: time.Now()}
	for i := 0; i < len(r.header); i += 2 {
		h.Header.Add(r.header[i], r.header[i+1])
	}
	h.Query, _ = url.ParseQuery(r.query) // It was encoded by us.
	return h
}
