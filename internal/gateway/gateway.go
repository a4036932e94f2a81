package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/engineio"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/chat"
	"parley/internal/config"
	"parley/internal/id"
	"parley/internal/problem"
	"parley/socketio"
)

const (
	// A socket that sends before its first authenticate has been answered is held to these bounds.
	earlyEventsMax = 32
	earlyBytesMax  = 64 << 10
	// heldBytesMax bounds what a session holds back while it catches up.
	heldBytesMax = 1 << 20
	// sendingMax is how many sends of one socket may be unanswered; the next one waits.
	sendingMax = 256
	// A cursor goes out when so many durable events are new to the client, or so long after the first of them.
	cursorEvents  = 50
	cursorSeconds = 5
	// tokenWarning is how long before its end a token's bearer is told.
	tokenWarning = 60 * time.Second
	// eventTimeout bounds the work for one event.
	eventTimeout = 15 * time.Second
)

// Path is where Socket.IO clients connect.
const Path = "/socket.io/"

// Options are what a Gateway is told beside its own settings.
type Options struct {
	AllowedOrigins []string       // none: all, without credentials
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	ShutdownSpread time.Duration  // over which Shutdown closes the connections
	Replay         ReplayLimits
	Nodes          *bus.Bus // by which other nodes are reached; nil if there are none
	Log            *slog.Logger
}

// ReplayLimits are how much is replayed to a client that comes back; beyond them it is told to sync.
type ReplayLimits struct{ ChangesMax, BytesMax int }

// Parts are what a Gateway works with.
type Parts struct {
	Chat     *chat.Chat
	Users    *auth.Users
	Verifier *auth.Verifier
	Log      *slog.Logger
	Now      func() time.Time
	Metrics  prometheus.Registerer
}

// Gateway serves the Socket.IO clients of a node.
type Gateway struct {
	io          *socketio.Server
	parts       Parts
	replayMax   ReplayLimits
	authTimeout time.Duration
	recovery    *recovery
	limits      limits
	hub         *hub
	elsewhere   *elsewhere // nil if there are no other nodes
	now         func() time.Time
	metrics     metrics

	mu       sync.Mutex
	sessions []*session
}

// New makes a Gateway that knows nobody. Its Apply is given to chat.New; Serve follows.
func New(cfg config.Gateway, o Options) *Gateway {
	g := &Gateway{
		hub:       &hub{users: map[id.User]*user{}, offsets: cfg.RecoveryTime > 0},
		replayMax: o.Replay, authTimeout: cfg.AuthTimeout, recovery: newRecovery(cfg.RecoveryTime), limits: newLimits(cfg),
	}
	opts := socketio.Options{
		Engine: engineio.Options{
			Path: Path, PingInterval: cfg.PingInterval, PingTimeout: cfg.PingTimeout, UpgradeTimeout: cfg.UpgradeTimeout,
			MessageTimeout: cfg.MessageTimeout, WriteTimeout: cfg.WriteTimeout, MaxPayload: int(cfg.MaxPayload), QueueBytesMax: int(cfg.QueueBytesMax),
			FragmentsMax: cfg.FragmentsMax, PayloadPacketsMax: cfg.PayloadPacketsMax,
			ConnsMax: cfg.ConnsMax, AddressConnsMax: cfg.AddressConnsMax, Address: addressOf(o.TrustedProxies),
			FirstPollTimeout: cfg.FirstPollTimeout, Credentials: cfg.Credentials, Cookie: cookie(cfg.Cookie),
			AllowedOrigins: o.AllowedOrigins, ShutdownSpread: o.ShutdownSpread, Logger: o.Log,
		},
		ConnectTimeout: cfg.AuthTimeout, NamespacesMax: cfg.NamespacesMax,
		AttachmentsMax: cfg.AttachmentsMax, AttachmentBytesMax: int(cfg.AttachmentBytesMax), AttachmentTimeout: cfg.AttachmentTimeout,
		HandshakeHeaders: []string{}, // none is used, and each would stay in memory
	}
	if o.Nodes != nil {
		g.elsewhere = newElsewhere(o.Nodes, cfg, o.Log, &opts.Engine)
	}
	g.io = socketio.NewServer(opts)
	return g
}

// cookie is what a session's id is set in, or nil.
func cookie(name string) *http.Cookie {
	if name == "" {
		return nil
	}
	return &http.Cookie{Name: name}
}

// Apply brings a commit to the sockets of this node. It is called on the lane of the commit's bucket.
//
// If we erred and it panics, nobody can say who was told: all sockets are closed, and catch up when they come back.
func (g *Gateway) Apply(c chat.Commit) {
	defer func() {
		if p := recover(); p != nil {
			g.metrics.panics.Inc()
			g.parts.Log.Error("a commit could not be told", "bucket", c.Bucket, "pos", c.Pos, "panic", p, "stack", string(debug.Stack()))
			go g.closeAll() // not on the lane
		}
	}()
	g.hub.apply(c)
}

// Present is chat.Parts.Present.
func (g *Gateway) Present(u id.User) bool { return g.hub.present(u) }

func (g *Gateway) closeAll() {
	g.mu.Lock()
	all := slices.Clone(g.sessions)
	g.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.phase = ended // what we know of its place is not to be relied on
		s.mu.Unlock()
		s.socket.Disconnect(true)
	}
}

// Lost is chat.Parts.Lost: every client comes back, and what we know of its place is forgotten.
func (g *Gateway) Lost() {
	g.closeAll()
	g.recovery.forget()
}

// Serve attaches the Gateway to its parts: from here on sockets can be taken. Run must be running. The only error is
// a bus that has been closed.
func (g *Gateway) Serve(p Parts) error {
	g.parts, g.now = p, p.Now
	g.hub.at, g.hub.keep, g.hub.complete = p.Chat.Feed.At, p.Chat.Feed.Keep, p.Chat.Feed.Complete
	g.observe(p.Metrics)
	n := g.io.Of(namespace)
	n.OnAuth(g.onAuth)
	n.OnConnect(g.onConnect)
	n.OnEvent(g.onEvent)
	n.OnDisconnect(g.onDisconnect)
	if g.elsewhere == nil {
		return nil
	}
	return g.elsewhere.start(g.io.ServeHTTP, p.Metrics)
}

// ServeHTTP answers the requests of the transports, under Path.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.io.ServeHTTP(w, r) }

// Shutdown closes all connections so that their clients come back, to whoever serves then.
func (g *Gateway) Shutdown(ctx context.Context) error {
	err := g.io.Shutdown(ctx)
	if g.elsewhere != nil {
		g.elsewhere.stop()
	}
	return err
}

// onAuth verifies a token that came with the handshake, and finds the earlier socket of a client that comes back. A socket
// with neither connects, and has a deadline.
func (g *Gateway) onAuth(h *socketio.Handshake) error {
	auth := decodeHandshake(h.Auth)
	in := handshake{resume: resumption{cursor: auth.Cursor}}
	if auth.Token != "" {
		ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
		defer cancel()
		who, err := g.parts.Verifier.Verify(ctx, auth.Token)
		if err != nil {
			pe, _ := problem.Of(err)
			return &socketio.ConnectError{Message: pe.Message, Data: map[string]any{"code": pe.Code}}
		}
		in.who = who
	}
	if g.recovery.on() {
		if h.PID != "" && auth.Cursor == "" { // who keeps a cursor needs nothing else
			g.recover(h, &in)
		}
		h.GivePID = g.recovery.pid(h.SocketID)
	}
	h.Data = in
	return nil
}

func (g *Gateway) onConnect(socket *socketio.Socket) {
	h, _ := socket.Data().(handshake)
	s := &session{socket: socket, out: socketSink{socket}, began: g.now().UnixNano()}
	if h.offset != "" {
		s.early = &early{offset: h.offset}
	}
	socket.SetData(s)
	g.mu.Lock()
	s.index = int32(len(g.sessions))
	g.sessions = append(g.sessions, s)
	g.mu.Unlock()
	if h.who.User == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	defer cancel()
	if err := g.signIn(ctx, s, h.who, h.resume, func(authenticated) {}); err != nil {
		g.failSignIn(s, err)
		socket.Disconnect(true)
	}
}

func (g *Gateway) onDisconnect(socket *socketio.Socket, reason string) {
	s, _ := socket.Data().(*session)
	if s == nil {
		return
	}
	if g.recovery.on() && recoverable(reason) {
		g.keepLeft(s)
	}
	s.mu.Lock()
	u := s.user
	s.phase, s.held = ended, nil
	s.mu.Unlock()
	if u != nil {
		g.hub.detach(u, s)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	last := g.sessions[len(g.sessions)-1]
	g.sessions[s.index] = last
	last.index = s.index
	g.sessions[len(g.sessions)-1] = nil
	g.sessions = g.sessions[:len(g.sessions)-1]
}

// onEvent runs on the connection's reader: the next event of the socket comes when it returns.
func (g *Gateway) onEvent(socket *socketio.Socket, e *socketio.Event) {
	s, _ := socket.Data().(*session)
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	// A send outlives its event's handler, and has a bound of its own.
	defer cancel()
	if eventByName[e.Name] == nil && e.Name != "authenticate" {
		e.Name = unknownEvent // a client's own words are not given back
	}
	if g.limits.every > 0 {
		if wait := s.pace.take(g.limits, g.now()); wait > 0 {
			g.fail(s, e, &problem.Error{Code: problem.RateLimited, Message: problem.RateLimitExceeded, RetryAfter: wait}, "")
			// What comes next is not read before it is due: a client that does not slow down is slowed down.
			time.Sleep(wait)
			return
		}
	}
	s.mu.Lock()
	at := s.phase
	s.mu.Unlock()
	switch {
	case e.Name == "authenticate":
		g.metrics.events.WithLabelValues(e.Name).Inc()
		g.authenticate(ctx, s, e)
	case at == anonymous:
		g.holdEarly(s, e)
	case at == live:
		g.do(ctx, s, e)
	}
}

// unknownEvent is what an event is called that is not in the table.
const unknownEvent = "unknown"

func (g *Gateway) do(ctx context.Context, s *session, e *socketio.Event) {
	known := eventByName[e.Name]
	if known == nil {
		s.waitSends(0)
		g.fail(s, e, problem.New(problem.BadRequest, "There is no such event."), "")
		return
	}
	g.metrics.events.WithLabelValues(known.Name).Inc()
	known.do(g, ctx, s, e)
}

// holdEarly keeps what came before the first authenticate.
func (g *Gateway) holdEarly(s *session, e *socketio.Event) {
	if s.early == nil {
		s.early = &early{}
	}
	for _, a := range e.Args {
		s.early.bytes += len(a)
	}
	for _, a := range e.Attachments {
		s.early.bytes += len(a)
	}
	if len(s.early.events) >= earlyEventsMax || s.early.bytes > earlyBytesMax {
		g.fail(s, e, errNotAuthenticated, "")
		return
	}
	s.early.events = append(s.early.events, e)
}

var errNotAuthenticated = problem.New(problem.NotAuthenticated, problem.AuthenticationFailed)

type authenticatePayload struct {
	UserID string `json:"user_id"`
	Token  string `json:"token"`
	Cursor string `json:"cursor,omitempty"`
}

// authenticate is the event of that name: it signs an anonymous socket in, or extends the session of a
// signed-in one with a fresh token of the same user. Every failure leaves the session as it was.
func (g *Gateway) authenticate(ctx context.Context, s *session, e *socketio.Event) {
	s.waitSends(0)
	var p authenticatePayload
	if decode(e, &p) != nil {
		g.refuse(s, e, errNotAuthenticated)
		return
	}
	who, err := g.parts.Verifier.Verify(ctx, p.Token)
	if err == nil && string(who.User) != p.UserID {
		err = errNotAuthenticated
	}
	if err != nil {
		if _, shown := problem.Of(err); shown {
			err = errNotAuthenticated // an expired token too: by this event every failure is the same
		}
		g.refuse(s, e, err)
		return
	}
	s.mu.Lock()
	u := s.user
	if u != nil && u.id == who.User {
		s.expires, s.warned = max(s.expires, who.ExpiresAt.Unix()), false
	}
	s.mu.Unlock()
	switch {
	case u == nil:
		if err := g.signIn(ctx, s, who, resumption{cursor: p.Cursor}, func(a authenticated) { g.ack(e, a) }); err != nil {
			g.refuse(s, e, err)
			return
		}
	case u.id != who.User:
		g.refuse(s, e, errNotAuthenticated)
		return
	default:
		told := g.hub.complete()
		a := authenticated{u.id, g.cursorOf(s)}
		g.ack(e, a)
		g.emitPlace(s, "authenticated", a, a.Cursor, told)
		return
	}
	early := s.takeEarly()
	s.early = nil
	for _, e := range early {
		ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
		g.do(ctx, s, e)
		cancel()
	}
}

// refuse answers a failed authenticate, and whatever waited for it on a socket that is not signed in.
func (g *Gateway) refuse(s *session, e *socketio.Event, err error) {
	g.fail(s, e, err, "")
	for _, early := range s.takeEarly() {
		g.fail(s, early, errNotAuthenticated, "")
	}
}

// takeEarly returns the events that waited for the first authenticate.
func (s *session) takeEarly() []*socketio.Event {
	if s.early == nil {
		return nil
	}
	events := s.early.events
	s.early.events, s.early.bytes = nil, 0
	return events
}

// cursorOf is the place up to which a session that has signed in has been sent everything.
func (g *Gateway) cursorOf(s *session) string { return g.parts.Chat.Cursor(g.placeOf(s)) }

func (g *Gateway) placeOf(s *session) chat.Positions {
	at, unlock := g.lockPlace(s)
	defer unlock()
	return at
}

// lockPlace returns the place of a session that has signed in. Nothing is sent to the session until unlock is called.
func (g *Gateway) lockPlace(s *session) (at chat.Positions, unlock func()) {
	s.mu.Lock()
	u := s.user
	s.mu.Unlock()
	u.mu.Lock()
	s.mu.Lock()
	return g.positions(u, s), func() {
		s.mu.Unlock()
		u.mu.Unlock()
	}
}

// positions are those up to which the session s of u has been sent everything; both are locked.
func (g *Gateway) positions(u *user, s *session) chat.Positions {
	at := make(chat.Positions, len(u.buckets))
	for _, b := range u.buckets {
		at[b] = g.parts.Chat.Feed.Applied(b)
	}
	for b, pos := range s.floor {
		if pos <= at[b] {
			delete(s.floor, b)
		} else {
			at[b] = pos
		}
	}
	return at
}

// ack acknowledges an event with ok and what answer holds.
func (g *Gateway) ack(e *socketio.Event, answer any) {
	if !e.WantsAck() {
		return
	}
	b := []byte(`[{"ok":true`)
	if answer != nil {
		fields, err := json.Marshal(answer)
		if err != nil || len(fields) < 2 || fields[0] != '{' {
			panic("gateway: an answer of ours is no object")
		}
		if len(fields) > 2 {
			b = append(append(b, ','), fields[1:len(fields)-1]...)
		}
	}
	_ = e.AckRaw(append(b, "}]"...)) // fails only when the socket is gone
}

type failure struct {
	Code         problem.Code `json:"code"`
	Message      string       `json:"message"`
	RetryAfterMS int64        `json:"retry_after_ms,omitempty"`
	RequestID    string       `json:"request_id,omitempty"`
}

type failureEvent struct {
	failure
	Event           string `json:"event"`
	ClientMessageID string `json:"client_message_id,omitempty"`
}

// fail answers an event that failed: in its acknowledgement, and as an error event for clients that ask for none.
func (g *Gateway) fail(s *session, e *socketio.Event, err error, clientMessageID string) {
	f := g.failed(e.Name, err)
	if e.WantsAck() {
		_ = e.Ack(struct {
			OK    bool    `json:"ok"`
			Error failure `json:"error"`
		}{false, f}) // fails only when the socket is gone
	}
	s.emit("error", failureEvent{f, e.Name, clientMessageID})
}

// failSignIn tells a socket that its sign-in ended or did not come about, though it sent no event that could be answered.
func (g *Gateway) failSignIn(s *session, err error) {
	s.emit("error", failureEvent{failure: g.failed("authenticate", err), Event: "authenticate"})
}

// failed counts a failure of the event called name, and is what may be shown of it; what may not goes to the log.
func (g *Gateway) failed(name string, err error) failure {
	pe, shown := problem.Of(err)
	f := failure{Code: pe.Code, Message: pe.Message, RetryAfterMS: pe.RetryAfter.Milliseconds()}
	if !shown || pe.Code.Status() >= http.StatusInternalServerError {
		f.RequestID = rand.Text()
		g.parts.Log.Error("an event failed", "event", name, "request", f.RequestID, "err", err)
	}
	g.metrics.failures.WithLabelValues(string(f.Code)).Inc()
	return f
}
