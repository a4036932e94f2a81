package gateway

import (
	"slices"
	"sync"
	"time"

	"parley/internal/chat"
	"parley/internal/id"
	"parley/socketio"
)

// hub knows which users have sockets on this node and which conversations they are in. It does no I/O of
// its own: commits come in by apply, packets go out by the sinks of the sessions.
type hub struct {
	// at runs a function in the order of a bucket's commits (chat.Feed.At).
	at func(b id.Bucket, do func(applied int64)) bool
	// keep counts by delta who wants the commits of a bucket (chat.Feed.Keep): its rooms, of which one is enough.
	keep func(b id.Bucket, delta int)
	// offsets says that events carry one; complete is the time that they carry (chat.Feed.Complete).
	offsets  bool
	complete func() time.Time
	// rooms of a bucket belong to its lane: they are read and changed only by apply and inside at.
	rooms [id.Buckets]map[id.Conversation]*room

	mu    sync.Mutex
	users map[id.User]*user
}

// room is a conversation with at least one user on this node.
type room struct {
	id    id.Conversation
	users []*user
}

// user is someone with at least one socket on this node.
type user struct {
	id id.User

	mu       sync.Mutex
	sessions []*session
	rooms    []*room     // changed only inside the lanes
	buckets  []id.Bucket // of the conversations that he is or was in, as far as his sessions were told
	gone     bool        // the last session was detached; it enters no room any more
	joining  int         // sessions that are signing in
	// journal has the memberships that began or ended while a session is signing in: what it read of the
	// database before does not know them.
	journal map[id.Conversation]int64 // by position
}

// event is one packet on its way to sessions.
type event struct {
	bucket  id.Bucket
	pos     int64
	conv    id.Conversation
	packet  *socketio.Packet
	durable bool
	mark    mark // 0: the client's place does not depend on it
}

// attach adds a session, which holds what comes until release, to its user; not beyond most sessions, if that is not 0: it
// returns nil then.
func (h *hub) attach(name id.User, s *session, most int) *user {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[name]
	if u == nil {
		u = &user{id: name}
		h.users[name] = u
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if most > 0 && len(u.sessions) >= most {
		return nil
	}
	u.sessions = append(u.sessions, s)
	u.joining++
	return u
}

// join takes the user into the rooms of his memberships, each in the order of its bucket's commits, and
// then calls done with the positions from which on his sessions are told everything: what lies at or
// before them must be read from the log. ms must have been read after attach. Of a conversation that a membership in ms began
// in behind those positions he may be told no more than that before it began, even if he had been a member earlier.
func (h *hub) join(u *user, ms []chat.Membership, done func(from chat.Positions)) {
	u.expect(len(ms))
	var mu sync.Mutex // over the two below
	from, left := chat.Positions{}, 1
	arrived := func(b id.Bucket, applied int64) {
		mu.Lock()
		if applied >= 0 {
			from[b] = applied
		}
		left--
		last := left == 0
		mu.Unlock()
		if last {
			u.joined()
			done(from)
		}
	}
	for len(ms) > 0 {
		b := ms[0].Conversation.Bucket()
		end := slices.IndexFunc(ms, func(m chat.Membership) bool { return m.Conversation.Bucket() != b })
		if end < 0 {
			end = len(ms)
		}
		mine := ms[:end]
		ms = ms[end:]
		mu.Lock()
		left++
		mu.Unlock()
		running := h.at(b, func(applied int64) {
			u.knows(b)
			for _, m := range mine {
				// The row may be ahead of the lane, which then comes to the change that it shows.
				if m.Member.MemberAt(applied) && u.journaled(m.Conversation) <= m.Member.ChangedPos {
					h.enter(b, m.Conversation, u)
				}
			}
			arrived(b, applied)
		})
		if !running { // the node is stopping
			arrived(b, -1)
		}
	}
	arrived(0, -1)
}

// expect makes room for so many conversations, and no more: an idle user keeps it.
func (u *user) expect(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rooms = slices.Grow(u.rooms, max(n-len(u.rooms), 0))
	u.buckets = slices.Grow(u.buckets, max(min(n, id.Buckets)-len(u.buckets), 0))
}

// knows notes that the user's place has a position in bucket b.
func (u *user) knows(b id.Bucket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Contains(u.buckets, b) { // at most 256
		u.buckets = append(u.buckets, b)
	}
}

// joined forgets the journal when no session is signing in any more.
func (u *user) joined() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.joining--; u.joining == 0 {
		u.journal = nil
	}
}

func (u *user) journaled(c id.Conversation) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.journal[c]
}

// detach takes a session from its user, and the user from his rooms with his last one.
func (h *hub) detach(u *user, s *session) {
	h.mu.Lock()
	u.mu.Lock()
	u.sessions = slices.DeleteFunc(u.sessions, func(x *session) bool { return x == s })
	var rooms []*room
	if len(u.sessions) == 0 && !u.gone {
		u.gone = true
		delete(h.users, u.id)
		rooms = u.rooms
	}
	u.mu.Unlock()
	h.mu.Unlock()
	for _, r := range rooms {
		b := r.id.Bucket()
		h.at(b, func(int64) { h.leave(b, r.id, u) })
	}
}

// enter takes u into the room of a conversation; on the lane of b.
func (h *hub) enter(b id.Bucket, c id.Conversation, u *user) {
	if h.rooms[b] == nil {
		h.rooms[b] = map[id.Conversation]*room{}
	}
	r := h.rooms[b][c]
	if r == nil {
		r = &room{id: c}
	}
	u.mu.Lock()
	entered := !u.gone && !slices.Contains(u.rooms, r)
	if entered {
		u.rooms = append(u.rooms, r)
	}
	u.mu.Unlock()
	if !entered {
		return
	}
	r.users = append(r.users, u)
	if len(h.rooms[b]) == 0 {
		h.keep(b, 1)
	}
	h.rooms[b][c] = r
}

// leave takes u out of the room of a conversation; on the lane of b.
func (h *hub) leave(b id.Bucket, c id.Conversation, u *user) {
	r := h.rooms[b][c]
	if r == nil {
		return
	}
	u.mu.Lock()
	u.rooms = slices.DeleteFunc(u.rooms, func(x *room) bool { return x == r })
	u.mu.Unlock()
	// The order of a room's users means nothing.
	if i := slices.Index(r.users, u); i >= 0 {
		last := len(r.users) - 1
		r.users[i] = r.users[last]
		r.users[last] = nil
		r.users = r.users[:last]
	}
	if len(r.users) == 0 {
		delete(h.rooms[b], c)
		if len(h.rooms[b]) == 0 {
			h.keep(b, -1)
		}
	}
}

// present tells whether a user has a session here, and so is to be told what becomes of his memberships.
func (h *hub) present(name id.User) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.users[name] != nil
}

// find returns a user who has a session here, and notes in his journal that a membership of his changed.
func (h *hub) find(name id.User, c id.Conversation, pos int64) *user {
	h.mu.Lock()
	u := h.users[name]
	h.mu.Unlock()
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.joining > 0 {
		if u.journal == nil {
			u.journal = map[id.Conversation]int64{}
		}
		u.journal[c] = pos
	}
	return u
}

// apply brings a commit to the sessions whom it concerns; on the lane of its bucket.
func (h *hub) apply(c chat.Commit) {
	told := h.complete()
	h.leaveReturning(c)
	for i := range c.Changes {
		ch := &c.Changes[i]
		r := h.rooms[c.Bucket][ch.Conversation]
		to := telling{bucket: c.Bucket, change: ch}
		if h.offsets {
			to.mark = markOf(c.Bucket, ch.Pos)
			to.offset = [][]byte{offset{mark: to.mark, told: told}.json()}
		}
		switch ch.Kind {
		case chat.MessageNew:
			r.tellMessage(to)
		case chat.MessageUpdated:
			r.tell(nil, func() event { return to.event(packetOf("message-updated", ch.Row, to.offset...)) })
		case chat.MessageDeleted:
			r.tell(nil, func() event { return to.event(packetFor("message-deleted", ch.Deleted(), to.offset...)) })
		case chat.ConversationAdded, chat.MemberAdded:
			if ch.Kind == chat.MemberAdded {
				r.tellMembers("member-added", to)
			}
			added := map[chat.Role]*socketio.Packet{}
			for _, m := range ch.Members {
				u := h.find(m.UserID, ch.Conversation, ch.Pos)
				if u == nil {
					continue
				}
				if added[m.Role] == nil {
					added[m.Role] = packetOf("conversation-added", chat.RowForMember(ch.Row, m.Role), to.offset...)
				}
				u.knows(c.Bucket)
				h.enter(c.Bucket, ch.Conversation, u)
				u.deliver(to.event(added[m.Role]))
			}
		case chat.MemberRemoved:
			for _, m := range ch.Members {
				u := h.find(m.UserID, ch.Conversation, ch.Pos)
				if u == nil {
					continue
				}
				h.leave(c.Bucket, ch.Conversation, u)
				u.deliver(to.event(packetFor("conversation-removed", conversationRemoved{ch.Conversation, ch.Pos}, to.offset...)))
			}
			h.rooms[c.Bucket][ch.Conversation].tellMembers("member-removed", to)
		}
	}
}

// leaveReturning takes out of their rooms those whom the commit adds. One who is still in his room was removed before,
// and that was never told: a log that is read from SQL shows memberships in their latest state. Nothing of what stands
// before his return is for him.
func (h *hub) leaveReturning(c chat.Commit) {
	for i := range c.Changes {
		ch := &c.Changes[i]
		if ch.Kind != chat.MemberAdded || h.rooms[c.Bucket][ch.Conversation] == nil {
			continue
		}
		for _, m := range ch.Members {
			if u := h.find(m.UserID, ch.Conversation, ch.Pos); u != nil {
				h.leave(c.Bucket, ch.Conversation, u)
			}
		}
	}
}

// telling is one change on its way to a room.
type telling struct {
	bucket id.Bucket
	change *chat.Change
	mark   mark
	offset [][]byte // the argument behind the payload, or none
}

func (t *telling) event(p *socketio.Packet) event {
	return event{bucket: t.bucket, pos: t.change.Pos, conv: t.change.Conversation, packet: p, durable: true, mark: t.mark}
}

// tell brings an event to all users of a room but one; it is made only if somebody is there. A nil room has nobody.
func (r *room) tell(but *user, make func() event) {
	if r == nil || len(r.users) == 0 {
		return
	}
	e := make()
	for _, u := range r.users {
		if u != but {
			u.deliver(e)
		}
	}
}

// tellMembers tells a room of each member that was added or removed. Who has got the last has got all.
func (r *room) tellMembers(name string, t telling) {
	for i, m := range t.change.Members {
		var offset [][]byte
		if i == len(t.change.Members)-1 {
			offset = t.offset
		}
		r.tell(nil, func() event { return t.event(packetFor(name, memberChange(t.change, m), offset...)) })
	}
}

// tellMessage brings a new message to a room: to its sender with what only he may see.
func (r *room) tellMessage(t telling) {
	if r == nil {
		return
	}
	ch := t.change
	var sender *user
	if ch.Message.ClientMessageID != "" {
		if i := slices.IndexFunc(r.users, func(u *user) bool { return u.id == ch.Message.SenderID }); i >= 0 {
			sender = r.users[i]
			sender.deliver(t.event(packetOf("new-message", chat.RowForSender(ch.Row, ch.Message.ClientMessageID), t.offset...)))
		}
	}
	if sender == nil || len(r.users) > 1 {
		r.tell(sender, func() event { return t.event(packetOf("new-message", ch.Row, t.offset...)) })
	}
}

// deliver brings an event to all sessions of a user.
func (u *user) deliver(e event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sessions {
		s.deliver(e)
	}
}
