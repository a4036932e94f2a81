package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/id"
	"parley/socketio"
)

// sink takes events for one socket; it never blocks, and fails only when the socket is gone.
type sink interface{ take(event) error }

type socketSink struct{ *socketio.Socket }

func (s socketSink) take(e event) error { return s.Send(e.packet) }

// phase is how far a session has got.
type phase uint8

const (
	anonymous phase = iota // may only authenticate
	joining                // signed in; what is committed is held
	live
	ended
)

// session is one socket and who it belongs to.
type session struct {
	socket *socketio.Socket
	out    sink
	began  time.Time

	// Used by the connection's reader alone.
	early      []*socketio.Event // came before the first authenticate
	earlyBytes int

	mu        sync.Mutex
	phase     phase
	behind    bool  // was told to sync and has not: no cursor may promise it what it has not got
	warned    bool  // was told that its token ends
	index     int32 // among the gateway's sessions
	fresh     int32 // durable events since the last cursor
	sending   int32 // sends that are not answered yet
	expires   int64 // of the token, in seconds since 1970; 0: never
	cursorAt  int64 // seconds since 1970
	user      *user
	held      []event // while joining
	heldBytes int
	off       []id.Conversation // leave-conversation switched them off
	idle      chan struct{}     // somebody waits for sending to fall
}

// deliver sends an event, or holds it while the session is joining.
func (s *session) deliver(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case live:
		s.send(e)
	case joining:
		if s.heldBytes += e.packet.Size(); s.heldBytes > heldBytesMax {
			// It comes back with its cursor, and is told to sync when that has become too much.
			s.phase, s.held = ended, nil
			go s.socket.Disconnect(true) // not under our locks
			return
		}
		s.held = append(s.held, e)
	}
}

// send passes an event on, unless its conversation is switched off; s.mu is held.
func (s *session) send(e event) {
	if len(s.off) > 0 && slices.Contains(s.off, e.conv) {
		return
	}
	if s.out.take(e) != nil {
		return // disconnected: it is detached in a moment
	}
	if e.durable {
		s.fresh++
	}
}

// release ends joining: what was held and lies beyond the positions that the client has been brought to
// goes out, and from here on everything at once.
func (s *session) release(from chat.Positions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != joining {
		return
	}
	s.phase = live
	for _, e := range s.held {
		if e.pos > from[e.bucket] {
			s.send(e)
		}
	}
	s.held, s.heldBytes = nil, 0
}

// authenticated is the answer to every way of signing in.
type authenticated struct {
	UserID id.User `json:"user_id"`
	Cursor string  `json:"cursor"`
}

type cursorEvent struct {
	Cursor string `json:"cursor"`
	Reset  bool   `json:"reset,omitempty"`
}

// signIn makes the session one of its user's: it joins the rooms, is told that it is authenticated,
// gets what it missed since cursor ("": nothing), and is live. ack is called before the event goes out. It
// runs on the connection's reader, so nothing else of this socket is done meanwhile.
func (g *Gateway) signIn(ctx context.Context, s *session, who auth.Identity, cursor string, ack func(authenticated)) error {
	if _, err := g.parts.Users.SignedIn(ctx, who); err != nil {
		return err
	}
	s.mu.Lock()
	s.phase, s.expires = joining, who.ExpiresAt.Unix()
	s.mu.Unlock()
	u := g.hub.attach(who.User, s)
	ms, err := g.parts.Chat.Memberships(ctx, who.User)
	joined := make(chan chat.Positions, 1)
	g.hub.join(u, ms, func(from chat.Positions) { joined <- from })
	from := <-joined
	if err != nil {
		s.mu.Lock()
		s.phase, s.held, s.heldBytes = anonymous, nil, 0
		s.mu.Unlock()
		g.hub.detach(u, s)
		return err
	}
	s.mu.Lock()
	s.user = u
	s.mu.Unlock()

	now := g.parts.Chat.Cursor(from)
	answer := authenticated{UserID: who.User, Cursor: now}
	if cursor != "" {
		answer.Cursor = cursor // what it missed comes after; only then may it rely on a later one
	}
	ack(answer)
	s.emit("authenticated", answer)
	if cursor != "" {
		g.replay(ctx, s, cursor, from)
	}
	s.mu.Lock()
	s.cursorAt = g.now().Unix()
	s.mu.Unlock()
	s.release(from)
	return nil
}

// replay sends what the client missed between its cursor and the positions at which it went live, or tells
// it to sync when that is too much.
func (g *Gateway) replay(ctx context.Context, s *session, cursor string, to chat.Positions) {
	limits := g.replayMax
	missed, err := g.parts.Chat.CatchUp(ctx, s.user.id, cursor, to, limits.ChangesMax)
	if err != nil {
		if missed = unread(err, to); !missed.Reset {
			g.parts.Log.Error("what a client missed could not be read", "user", s.user.id, "err", err)
		}
	}
	packets, bytes := make([]*socketio.Packet, 0, len(missed.Entries)), 0
	for i := range missed.Entries {
		p := replayed(s.user.id, &missed.Entries[i])
		bytes += p.Size()
		packets = append(packets, p)
	}
	switch {
	case missed.Reset:
		s.emit("sync_required", cursorEvent{g.parts.Chat.Cursor(to), true})
	case missed.More || bytes > limits.BytesMax:
		s.mu.Lock()
		s.behind = true
		s.mu.Unlock()
		s.emit("sync_required", cursorEvent{cursor, false})
	default:
		for _, p := range packets {
			if s.out.take(event{packet: p}) != nil {
				return // disconnected
			}
		}
		s.emit("cursor", cursorEvent{g.parts.Chat.Cursor(missed.Next), false})
	}
}

// unread is what is known of what a client missed when it could not be read. A cursor that is none stands for
// nothing, as one of another history does; a failure of ours must not cost the client its place.
func unread(err error, to chat.Positions) chat.Catchup {
	return chat.Catchup{Reset: errors.Is(err, chat.ErrCursor), More: true, Next: to}
}

// emit sends an event of ours to this session alone.
func (s *session) emit(name string, payload any) {
	_ = s.out.take(event{packet: packetFor(name, payload)}) // the socket is gone
}

// waitSends waits until at most n sends are unanswered. Only the connection's reader calls it.
func (s *session) waitSends(n int32) {
	for {
		s.mu.Lock()
		if s.sending <= n {
			s.mu.Unlock()
			return
		}
		idle := make(chan struct{})
		s.idle = idle
		s.mu.Unlock()
		<-idle
	}
}

func (s *session) sendBegun() {
	s.mu.Lock()
	s.sending++
	s.mu.Unlock()
}

func (s *session) sendAnswered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending--
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// handshakeAuth is what a client may present when it connects.
type handshakeAuth struct {
	Token  string `json:"token"`
	Cursor string `json:"cursor"`
}

// handshake keeps what a valid handshake token said until the socket is there.
type handshake struct {
	who    auth.Identity
	cursor string
}

func decodeHandshake(raw json.RawMessage) (h handshakeAuth) {
	if len(raw) > 0 && json.Unmarshal(raw, &h) != nil {
		h = handshakeAuth{Token: "?"} // of the wrong type: it fails as a token does
	}
	return h
}
