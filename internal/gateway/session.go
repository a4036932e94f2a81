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

// sink takes events for one socket; it never blocks, and fails only when the socket is gone. Sent and Ping are as in
// socketio.Socket.
type sink interface {
	take(event) error
	Sent() (sent, confirmed uint64)
	Ping()
}

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
	began  int64 // in nanoseconds since 1970

	// Used by the connection's reader alone.
	early *early // nil once the socket has signed in
	pace  pace

	mu       sync.Mutex
	phase    phase
	behind   bool  // was told to sync and has not: no cursor may promise it what it has not got
	warned   bool  // was told that its token ends
	index    int32 // among the gateway's sessions
	fresh    int32 // durable events since the last cursor
	sending  int32 // sends that are not answered yet
	expires  int64 // of the token, in seconds since 1970; 0: never
	cursorAt int64 // seconds since 1970
	cursors  uint32
	role     auth.Role
	user     *user
	trail    trail
	held     *held             // while joining; nil if nothing is
	off      []id.Conversation // leave-conversation switched them off
	// floor are positions that the client's cursor covers and this node's Feed had not reached when the client came from
	// a node that was ahead: what lies at or below them it has got.
	floor chat.Positions
	idle  chan struct{} // somebody waits for sending to fall
}

// early is what is kept of a client until it signs in.
type early struct {
	events []*socketio.Event // sent before the first authenticate
	bytes  int
	offset string // presented by a client that we could not recover
}

// held are events that wait until the client has been brought to where they begin.
type held struct {
	events []event
	bytes  int
}

// deliver sends an event, or holds it while the session is joining.
func (s *session) deliver(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case live:
		s.send(e)
	case joining:
		if s.held == nil {
			s.held = &held{}
		}
		if s.held.bytes += e.packet.Size(); s.held.bytes > heldBytesMax {
			// It comes back with its cursor, and is told to sync when that has become too much.
			s.phase, s.held = ended, nil
			go s.socket.Disconnect(true) // not under our locks
			return
		}
		s.held.events = append(s.held.events, e)
	}
}

// send passes an event on, unless its conversation is switched off; s.mu is held.
func (s *session) send(e event) {
	if len(s.off) > 0 && slices.Contains(s.off, e.conv) || len(s.floor) > 0 && e.durable && e.pos <= s.floor[e.bucket] {
		return
	}
	s.sendMarked(e)
	if e.durable {
		s.fresh++
	}
}

// sendMarked sends an event, and notes its mark if it has one; s.mu is held. What does not go out because the
// connection has broken is noted as well: it was missed.
func (s *session) sendMarked(e event) {
	_ = s.out.take(e) // disconnected: it is detached in a moment
	if e.mark == 0 {
		return
	}
	s.trail.add(e.mark)
	if n := len(s.trail.marks); n%trailPing == 0 {
		s.trail.confirm(s.out.Sent())
		s.out.Ping()
		if n >= trailMax && s.phase == live {
			go s.socket.Disconnect(true) // not under our locks; it comes back, and goes on from what it has
		}
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
	if s.held == nil {
		return
	}
	for _, e := range s.held.events {
		if e.pos > from[e.bucket] {
			s.send(e)
		}
	}
	s.held = nil
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

// signIn makes the session one of its user's: it joins the rooms, is told that it is authenticated, gets what it missed
// since it was here, and is live. ack is called before the event goes out. It runs on the connection's reader, so nothing
// else of this socket is done meanwhile.
func (g *Gateway) signIn(ctx context.Context, s *session, who auth.Identity, resume resumption, ack func(authenticated)) error {
	if _, err := g.parts.Users.SignedIn(ctx, who); err != nil {
		return err
	}
	if resume.cursor == "" && s.early != nil && s.early.offset != "" {
		found, err := g.lookUp(ctx, s.early.offset)
		if err != nil {
			return err
		}
		resume = found
	}
	s.mu.Lock()
	s.phase, s.expires, s.role = joining, who.ExpiresAt.Unix(), who.Role
	s.mu.Unlock()
	told := g.hub.complete()
	u := g.hub.attach(who.User, s, g.limits.userConns)
	if u == nil {
		s.mu.Lock()
		s.phase = anonymous
		s.mu.Unlock()
		return errTooManyConnections
	}
	ms, err := g.parts.Chat.Memberships(ctx, who.User)
	joined := make(chan chat.Positions, 1)
	g.hub.join(u, ms, func(from chat.Positions) { joined <- from })
	var from chat.Positions
	select {
	case from = <-joined:
	case <-ctx.Done(): // a lane that was asleep cannot read where it is
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		s.mu.Lock()
		s.phase, s.held = anonymous, nil
		s.mu.Unlock()
		g.hub.detach(u, s)
		return err
	}
	s.mu.Lock()
	s.user = u
	s.mu.Unlock()
	if s.early != nil {
		s.early.offset = ""
	}
	answer := authenticated{UserID: who.User, Cursor: g.parts.Chat.Cursor(from)}
	if resume.cursor == "" {
		resume.told = told
	} else {
		answer.Cursor = resume.cursor // what it missed comes after; only then may it rely on a later one
	}
	ack(answer)
	g.emitPlace(s, "authenticated", answer, answer.Cursor, resume.told)
	switch {
	case resume.lost:
		s.emit("sync_required", cursorEvent{answer.Cursor, true})
	case resume.cursor != "":
		g.replay(ctx, s, resume, from, told)
	}
	s.mu.Lock()
	s.cursorAt = g.now().Unix()
	s.mu.Unlock()
	s.release(from)
	return nil
}

// replay sends what the client missed between its cursor and the positions at which it went live, or tells it to sync when
// that is too much. Those positions cover all that was committed before told.
func (g *Gateway) replay(ctx context.Context, s *session, resume resumption, to chat.Positions, told time.Time) {
	limits := g.replayMax
	missed, err := g.parts.Chat.CatchUp(ctx, s.user.id, resume.cursor, to, limits.ChangesMax)
	if err != nil {
		if missed = unread(err, to); !missed.Reset {
			g.parts.Log.Error("what a client missed could not be read", "user", s.user.id, "err", err)
		}
	}
	if !missed.Reset {
		s.mu.Lock()
		s.floor = missed.Next.Beyond(to)
		s.mu.Unlock()
	}
	events, bytes := g.replayed(s.user.id, missed.Entries, resume.told)
	switch {
	case missed.Reset:
		s.emit("sync_required", cursorEvent{g.parts.Chat.Cursor(to), true})
	case missed.More || bytes > limits.BytesMax:
		s.mu.Lock()
		s.behind = true
		s.mu.Unlock()
		s.emit("sync_required", cursorEvent{resume.cursor, false})
	default:
		for _, e := range events {
			s.mu.Lock()
			s.sendMarked(e)
			s.mu.Unlock()
		}
		cursor := g.parts.Chat.Cursor(missed.Next)
		g.emitPlace(s, "cursor", cursorEvent{Cursor: cursor}, cursor, told)
	}
}

// replayed makes the events of what was missed, and counts their bytes. The offset of each says that the client has what
// lies before it in its bucket, and of the other buckets no more than it had: what was committed before told.
func (g *Gateway) replayed(u id.User, missed []chat.Entry, told time.Time) (events []event, bytes int) {
	events = make([]event, 0, len(missed))
	for i := range missed {
		m := &missed[i]
		e := event{bucket: m.ConversationID().Bucket(), pos: m.Pos, conv: m.ConversationID()}
		var args [][]byte
		if g.recovery.on() {
			e.mark = markOf(e.bucket, e.pos)
			last := i+1 == len(missed) || missed[i+1].Pos != m.Pos || missed[i+1].ConversationID().Bucket() != e.bucket
			if last && !told.IsZero() {
				args = append(args, offset{mark: e.mark, told: told}.json())
			}
		}
		e.packet = replayed(u, m, args)
		bytes += e.packet.Size()
		events = append(events, e)
	}
	return events, bytes
}

// unread is what is known of what a client missed when it could not be read. A cursor that is none stands for
// nothing, as one of another history does; a failure of ours must not cost the client its place.
func unread(err error, to chat.Positions) chat.Catchup {
	return chat.Catchup{Reset: errors.Is(err, chat.ErrCursor), More: true, Next: to}
}

// emitPlace sends an event that gives the client a cursor, which covers all that was committed before told, and has it as
// the client's offset.
func (g *Gateway) emitPlace(s *session, name string, payload any, cursor string, told time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.sendPlace(s, name, payload, cursor, told)
}

// sendPlace is emitPlace for who holds s.mu.
func (g *Gateway) sendPlace(s *session, name string, payload any, cursor string, told time.Time) {
	var e event
	var args [][]byte
	if g.recovery.on() {
		s.cursors++
		e.mark = markOfCursor(s.cursors)
		args = append(args, offset{e.mark, told, cursor}.json())
	}
	e.packet = packetFor(name, payload, args...)
	s.sendMarked(e)
}

// tellCursor sends a cursor that covers all that the session was sent before it. A lane may be about to hand it a commit
// of which it has a part already; so nothing is sent to the session meanwhile, and its trail says what it has.
func (g *Gateway) tellCursor(s *session) {
	told := g.hub.complete()
	at, unlock := g.lockPlace(s)
	defer unlock()
	s.trail.raise(at)
	cursor := g.parts.Chat.Cursor(at)
	g.sendPlace(s, "cursor", cursorEvent{Cursor: cursor}, cursor, told)
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

// handshake keeps what a client presented until its socket is there.
type handshake struct {
	who    auth.Identity
	resume resumption
	offset string // of a client that presented a pid, and could not be recovered by that
}

func decodeHandshake(raw json.RawMessage) (h handshakeAuth) {
	if len(raw) > 0 && json.Unmarshal(raw, &h) != nil {
		h = handshakeAuth{Token: "?"} // of the wrong type: it fails as a token does
	}
	return h
}
