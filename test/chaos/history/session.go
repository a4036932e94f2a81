package history

import "maps"

// device is a client that keeps its cursor, and so what it has, over its connections.
type device struct {
	name, user string
	began      int64 // the line from which on it is to get everything; 0: not yet
	views      map[string]*view
	places     []place // of its last cursors
	session    *session
	complete   bool // it has everything
}

// placesKept is how many cursors of a device are remembered with what they cover. A client uses its last one.
const placesKept = 4

// place is what a cursor covers: of each conversation, the messages up to a seq. They came before it.
type place struct {
	cursor string
	line   int64
	last   map[string]int64
}

// view is what a device has of a conversation.
type view struct {
	sure bool  // it has everything from some message up to last, so that the next one is the one behind it
	last int64 // the highest seq
	line int64 // that showed last
	rows map[int64]*state
}

// state is what a device knows of a message.
type state struct {
	pos     int64
	version int64
	deleted bool
	made    bool  // it came as new, and not only as changed
	line    int64 // that showed it last
	session int64 // that showed it as new last

	changedIn, changedPos int64 // the session that showed a change of it last, and its pos
}

// session is one connection of a device.
type session struct {
	id      int64
	device  *device
	live    bool
	resumed bool  // with a cursor
	covered place // by that cursor
	here    map[string]*here
	syncing bool // it was told to sync: what is live meanwhile lies behind what it will get
	held    []Row
	lines   []int64 // of held
}

// here is what a session was told of a conversation.
type here struct {
	last, line int64 // the highest seq that came as new, and the line that showed it
	added      int64 // the line of conversation-added
	removed    int64 // the line of conversation-removed, if nothing was added since
}

func (c *Checker) beginSession(op *operation) {
	l := &op.line
	d := c.device(l)
	if l.Cursor == "" {
		d.forget()
	}
	s := &session{id: l.Session, device: d, resumed: l.Cursor != "", here: map[string]*here{}}
	for _, p := range d.places {
		if p.cursor == l.Cursor {
			s.covered = p
		}
	}
	d.session, d.complete = s, false
	c.sessions[l.Session] = s
}

func (c *Checker) device(l *Line) *device {
	d := c.devices[l.Device]
	if d == nil {
		d = &device{name: l.Device, user: l.User, views: map[string]*view{}}
		c.devices[l.Device] = d
	}
	return d
}

// forget has the device begin anew.
func (d *device) forget() { d.began, d.views, d.places = 0, map[string]*view{}, nil }

func (d *device) view(conversation string) *view {
	v := d.views[conversation]
	if v == nil {
		v = &view{rows: map[int64]*state{}}
		d.views[conversation] = v
	}
	return v
}

func (v *view) state(seq int64) *state {
	st := v.rows[seq]
	if st == nil {
		st = &state{}
		v.rows[seq] = st
	}
	return st
}

func (s *session) of(conversation string) *here {
	h := s.here[conversation]
	if h == nil {
		h = &here{}
		s.here[conversation] = h
	}
	return h
}

// has notes that the device has a cursor, which covers what came on the session before it, and what the cursor that it began with covered.
// What came on an earlier connection behind its last cursor is not covered.
func (s *session) has(cursor string, line int64) {
	d := s.device
	p := place{cursor, line, make(map[string]int64, len(s.here))}
	maps.Copy(p.last, s.covered.last)
	for id, h := range s.here {
		p.last[id] = max(p.last[id], h.last)
	}
	d.places = append(d.places, p)
	d.places = d.places[max(0, len(d.places)-placesKept):]
}

func (c *Checker) connected(op *operation, l *Line) {
	s := c.sessions[op.line.Session]
	if s == nil {
		return
	}
	s.live = true
	if !s.resumed {
		s.device.began = l.N
	}
}

func (c *Checker) disconnected(id int64) {
	s := c.sessions[id]
	if s == nil {
		return
	}
	delete(c.sessions, id)
	if s.device.session == s {
		s.device.session = nil
	}
}

// event judges what a connection got.
func (c *Checker) event(l *Line) {
	s := c.sessions[l.Session]
	if s == nil {
		return
	}
	d := s.device
	switch l.Kind {
	case "cursor":
		s.has(l.Cursor, l.N)
	case "sync_required":
		s.syncing = true
		if l.Reset {
			c.violated(Gap, nil, "%s was told to start over, and the database has lost nothing", d.name)
			d.forget()
			d.began = l.N
		}
	case "conversation-added":
		h := s.of(l.Conversation)
		h.added, h.removed = l.N, 0
		d.view(l.Conversation).sure = false
		if !c.conversation(l.Conversation).invited[d.user] && c.conversations[l.Conversation].top > 0 {
			c.violated(Leak, nil, "%s was told of a conversation that nobody added him to", d.user)
		}
	case "conversation-removed":
		s.of(l.Conversation).removed = l.N
		d.view(l.Conversation).sure = false
	case "new-message", "message-updated", "message-deleted":
		for i := range l.Rows {
			c.told(s, l, &l.Rows[i])
		}
	case "member-added", "member-removed":
		c.inside(s, l.Conversation)
	}
}

// inside judges that a session was told something of a conversation.
func (c *Checker) inside(s *session, conversation string) {
	if h := s.of(conversation); h.removed > 0 {
		c.violated(Leak, []int64{h.removed}, "%s was told of a conversation behind his removal from it", s.device.user)
	}
}

// told judges an event of a message.
func (c *Checker) told(s *session, l *Line, row *Row) {
	m := c.observe(row)
	d := s.device
	c.got(d.user, m)
	c.inside(s, row.Conversation)
	if l.Kind != "new-message" {
		st := d.view(row.Conversation).state(row.Seq)
		if st.changedIn == s.id && st.changedPos == row.Pos {
			c.violated(Doubled, []int64{st.line}, "%s came twice on a connection for %s", l.Kind, row.ID)
		}
		st.changedIn, st.changedPos = s.id, row.Pos
		st.see(row, l.N)
		return
	}
	h := s.of(row.Conversation)
	st := d.view(row.Conversation).state(row.Seq)
	switch {
	case row.Seq > h.last:
		h.last, h.line = row.Seq, l.N
	case st.session == s.id:
		c.violated(Doubled, []int64{st.line}, "seq %d came twice on a connection", row.Seq)
	default:
		c.violated(Reordered, []int64{h.line}, "seq %d came behind seq %d", row.Seq, h.last)
	}
	if covered := s.covered.last[row.Conversation]; row.Seq <= covered && h.added == 0 {
		c.violated(Doubled, []int64{s.covered.line}, "seq %d came again, and the cursor covered seq %d", row.Seq, covered)
	}
	st.session = s.id
	if s.syncing {
		s.held, s.lines = append(s.held, *row), append(s.lines, l.N)
		return
	}
	c.take(d, row, l.N, h.added > 0)
}

// see takes a state of a message, if it is not older than what is known.
func (st *state) see(row *Row, line int64) {
	st.line = line
	if row.Pos >= st.pos {
		st.pos, st.version, st.deleted = row.Pos, row.Version, row.Deleted
	}
}

// take gives a device a message that is new to it, or may come again. If it was added to the conversation on this connection it may be
// shown the newest page of it, which lacks what was deleted.
func (c *Checker) take(d *device, row *Row, line int64, added bool) {
	v := d.view(row.Conversation)
	if v.sure && row.Seq > v.last+1 && !(added && c.conversation(row.Conversation).mayLack(v.last+1, row.Seq-1)) {
		c.violated(Gap, []int64{v.line, line}, "%s did not get seq %d to %d", d.name, v.last+1, row.Seq-1)
	}
	if row.Seq > v.last || !v.sure {
		v.last, v.line = row.Seq, line
	}
	v.sure = true
	st := v.state(row.Seq)
	st.made = true
	st.see(row, line)
}

// mayLack reports whether all messages from one seq to another may have been deleted.
func (cv *conversation) mayLack(from, to int64) bool {
	for seq := from; seq <= to; seq++ {
		if m := cv.messages[seq]; m == nil || !m.mayBeDeleted() {
			return false
		}
	}
	return true
}

// synced judges a page of what a client missed.
func (c *Checker) synced(op *operation, l *Line) {
	d := c.device(&op.line)
	s := c.sessions[op.line.Session]
	switch {
	case op.line.Cursor == "":
		d.began = l.N
		for id, cv := range c.conversations {
			d.view(id).sure = cv.top == 0 && len(cv.sent) == 0 // The first message is still to come.
		}
	case l.Reset:
		c.violated(Gap, []int64{op.line.N}, "%s was told to start over, and the database has lost nothing", d.name)
	}
	for i := range l.Rows {
		row := &l.Rows[i]
		v := d.view(row.Conversation)
		if row.Kind != "" {
			v.sure = false
			continue
		}
		m := c.observe(row)
		c.got(d.user, m)
		if v.sure {
			c.take(d, row, l.N, false)
			continue
		}
		// It may be an old one that was changed.
		st := v.state(row.Seq)
		st.made = true
		st.see(row, l.N)
		v.last = max(v.last, row.Seq)
	}
	if s == nil {
		d.complete = c.quiet && !l.More
	}
	if s == nil || !s.syncing || l.More {
		return
	}
	s.syncing = false
	for i := range s.held {
		c.take(d, &s.held[i], s.lines[i], s.of(s.held[i].Conversation).added > 0)
	}
	s.held, s.lines = nil, nil
}
