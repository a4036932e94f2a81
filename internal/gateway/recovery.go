package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/id"
	"parley/socketio"
)

// recovery is how a client that keeps no cursor goes on where it was ("Connection state recovery" of Socket.IO). The
// official client keeps two things by itself: the pid of its socket, and the offset, which is the last argument of the
// last event that it got, if that is a string. We append one to every event that its place depends on.
//
// The pid leads to what this node knows of the socket: the positions up to which everything was sent and the trail of
// what may not have arrived, so that recovery is exact. It signs the user in again, so it is a secret, of this
// process alone, and is dead after a while, and at once if the server ended the socket (ban, revocation, expiry). On any
// other node, and after a restart, the offset says where the client was, to a few seconds; it carries no authority.
type recovery struct {
	keep time.Duration // 0: there is no recovery
	key  [32]byte      // of the pids

	// mu stands outside of users and sessions.
	mu    sync.Mutex
	left  map[string]*leftSession // by socket id
	queue []string                // socket ids, by their end
}

// leftMax bounds the sessions that are kept for recovery; beyond it the oldest are forgotten.
const leftMax = 100_000

// leftSession is what remains of a session whose connection broke.
type leftSession struct {
	who   auth.Identity
	at    chat.Positions // all up to here was sent, but for what the trail says
	trail trail
	until time.Time
}

func newRecovery(keep time.Duration) *recovery {
	r := &recovery{keep: keep, left: map[string]*leftSession{}}
	_, _ = rand.Read(r.key[:]) // It never fails.
	return r
}

func (r *recovery) on() bool { return r.keep > 0 }

// pid is the secret of the socket with this id.
func (r *recovery) pid(sid string) string {
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write([]byte(sid))
	return sid + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// opens returns the id of the socket that a pid of this process is for.
func (r *recovery) opens(pid string) (sid string, ok bool) {
	sid, _, _ = strings.Cut(pid, ".")
	return sid, hmac.Equal([]byte(pid), []byte(r.pid(sid)))
}

// put keeps what is left of a socket; r.mu is held.
func (r *recovery) put(sid string, l *leftSession) {
	r.left[sid] = l
	r.queue = append(r.queue, sid)
	for len(r.queue) > leftMax {
		r.drop()
	}
}

// drop forgets the oldest; r.mu is held.
func (r *recovery) drop() {
	delete(r.left, r.queue[0])
	r.queue = r.queue[1:]
}

// forget forgets all that is kept.
func (r *recovery) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.left)
	r.queue = nil
}

// expire forgets what has been kept long enough.
func (r *recovery) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		if l := r.left[r.queue[0]]; l != nil && now.Before(l.until) {
			return
		}
		r.drop()
	}
	r.queue = nil
}

// recoverable reports whether a client may go on after an end with this reason: it may, unless one side meant the end.
func recoverable(reason string) bool {
	return reason != socketio.ReasonClientDisconnect && reason != socketio.ReasonServerDisconnect
}

// leave ends a live session and returns what is left of it, or nil if it has ended otherwise; r.mu is held.
func (g *Gateway) leave(s *session) *leftSession {
	s.mu.Lock()
	u := s.user
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	at := g.placeOf(s) // before the trail ends: what is sent meanwhile is on it
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != live {
		return nil
	}
	s.phase = ended
	return &leftSession{
		who: auth.Identity{User: u.id, Role: s.role, ExpiresAt: time.Unix(s.expires, 0)},
		at:  at, trail: s.trail, until: g.now().Add(g.recovery.keep),
	}
}

// keepLeft keeps what is left of a session whose connection broke.
func (g *Gateway) keepLeft(s *session) {
	r := g.recovery
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := g.leave(s); l != nil {
		r.put(s.socket.ID(), l)
	}
}

// takeLeft returns what is left of the socket with this id, once, for a client that is, or else is not yet known to be,
// its user. A connection that we do not know yet to be broken ends by this.
func (g *Gateway) takeLeft(sid string, user id.User) *leftSession {
	r := g.recovery
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.left[sid]
	delete(r.left, sid)
	if old := g.io.Of(namespace).Socket(sid); l == nil && old != nil {
		if s, _ := old.Data().(*session); s != nil {
			l = g.leave(s)
			old.Disconnect(true)
		}
	}
	if l == nil || g.now().After(l.until) || !l.who.ExpiresAt.After(g.now()) || user != "" && user != l.who.User {
		return nil
	}
	return l
}

// resumption is where a client goes on. The zero value is one that has not been here.
type resumption struct {
	cursor string    // ""; there is none
	told   time.Time // the client had got all that was committed before; zero: unknown
	lost   bool      // the client was here, and nobody knows where it was
}

// recover prepares the socket of a client that presents a pid: with what is left of its earlier one if we can have
// that, else with the offset to be looked up when it has signed in.
func (g *Gateway) recover(h *socketio.Handshake, in *handshake) {
	if sid, ok := g.recovery.opens(h.PID); ok {
		if l := g.takeLeft(sid, in.who.User); l != nil {
			o, _ := parseOffset(h.Offset)
			l.trail.place(l.at, o.mark)
			if in.who.User == "" {
				in.who = l.who
			}
			in.resume = resumption{cursor: g.parts.Chat.Cursor(l.at), told: o.told}
			h.SocketID = sid
			g.metrics.recovered.WithLabelValues("exact").Inc()
			return
		}
	}
	in.offset = h.Offset
}

// lookUp finds where a client was by the offset that it presents.
func (g *Gateway) lookUp(ctx context.Context, text string) (resumption, error) {
	o, ok := parseOffset(text)
	if !ok {
		return resumption{}, nil
	}
	r := resumption{cursor: o.cursor, told: o.told}
	if b, pos, isChange := o.mark.change(); isChange {
		cursor, found, err := g.parts.Chat.CursorAt(ctx, o.told, b, pos)
		if err != nil {
			return resumption{}, err
		}
		r.cursor, r.lost = cursor, !found
	}
	if r.lost {
		g.metrics.recovered.WithLabelValues("lost").Inc()
	} else {
		g.metrics.recovered.WithLabelValues("near").Inc()
	}
	return r, nil
}

// An offset is the last argument of an event, by which an official client says what it got last: the mark of that event,
// and a time, such that all that was committed before it had come first.
//
//	e<mark>.<milliseconds>            a change
//	c<mark>.<milliseconds>.<cursor>   a cursor
//
// Numbers are of base 36.
type offset struct {
	mark   mark
	told   time.Time
	cursor string
}

// json encodes the offset as an argument of an event.
func (o offset) json() []byte {
	b := make([]byte, 0, 32+len(o.cursor))
	if o.cursor == "" {
		b = append(b, `"e`...)
	} else {
		b = append(b, `"c`...)
	}
	b = strconv.AppendUint(b, uint64(o.mark), 36)
	b = append(b, '.')
	b = strconv.AppendInt(b, max(o.told.UnixMilli(), 0), 36)
	if o.cursor != "" {
		b = append(append(b, '.'), o.cursor...)
	}
	return append(b, '"')
}

// parseOffset reads what a client presents, which may be anything.
func parseOffset(text string) (o offset, ok bool) {
	if len(text) == 0 || text[0] != 'e' && text[0] != 'c' {
		return offset{}, false
	}
	number, rest, _ := strings.Cut(text[1:], ".")
	millis, cursor, withCursor := strings.Cut(rest, ".")
	m, err := strconv.ParseUint(number, 36, 64)
	ms, err2 := strconv.ParseInt(millis, 36, 64)
	_, _, isChange := mark(m).change()
	if err != nil || err2 != nil || ms < 0 || ms > 1<<50 || withCursor == isChange || withCursor != (text[0] == 'c') {
		return offset{}, false
	}
	o = offset{mark: mark(m), cursor: cursor}
	if ms > 0 {
		o.told = time.UnixMilli(ms)
	}
	return o, true
}
