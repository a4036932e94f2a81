package history

// conversation is what is known of one.
type conversation struct {
	id       string
	first    map[string]bool  // its members when it was made
	invited  map[string]bool  // whoever may ever have been a member
	entered  map[string]int64 // the line that acknowledged a user's last addition
	leaving  map[string]int64 // the line on which his last removal began
	absences map[string]*absence
	messages map[int64]*message // by seq
	sent     []*send
	top      int64             // the highest seq that anybody has seen; as it is committed, so are all below
	topped   int64             // the line that showed it
	shown    map[string]seen   // the highest receipts, by user
	final    map[string]*final // by node
}

func (c *Checker) conversation(id string) *conversation {
	cv := c.conversations[id]
	if cv == nil {
		cv = &conversation{id: id, first: map[string]bool{}, invited: map[string]bool{},
			entered: map[string]int64{}, leaving: map[string]int64{}, absences: map[string]*absence{}, messages: map[int64]*message{},
			shown: map[string]seen{}, final: map[string]*final{}}
		c.conversations[id] = cv
	}
	return cv
}

func (cv *conversation) created(user string) { cv.first[user], cv.invited[user] = true, true }

// message is one that somebody has seen.
type message struct {
	id        string
	in        *conversation // nil until it was seen
	seq       int64
	seen      int64 // the line that first showed it
	send      *send // nil: a system message, or only its tombstone was seen
	system    bool
	edits     map[int64]*change // by version
	deletions []*change
}

func (c *Checker) message(id string) *message {
	m := c.messages[id]
	if m == nil {
		m = &message{id: id, edits: map[int64]*change{}}
		c.messages[id] = m
	}
	return m
}

// change is an edit or a deletion.
type change struct {
	begun   int64 // lines
	acked   int64 // 0: it was not, or not yet
	refused int64
	shown   int64 // the first line that showed an edit's text
	op      int64
}

// mayBeDeleted reports whether some deletion may have been done.
func (m *message) mayBeDeleted() bool {
	for _, d := range m.deletions {
		if d.refused == 0 {
			return true
		}
	}
	return false
}

// deleted is the line on which a deletion was acknowledged, 0 if none was.
func (m *message) deleted() int64 {
	for _, d := range m.deletions {
		if d.acked > 0 {
			return d.acked
		}
	}
	return 0
}

// superseded returns the edit that a read begun on line must show if it shows version: one that began after that version was acknowledged,
// and was acknowledged itself. nil: there is none.
func (m *message) superseded(version, line int64) *change {
	done := int64(0) // of a message as it was sent: it precedes all edits
	if version != 0 {
		e := m.edits[version]
		if e == nil || e.acked == 0 {
			return nil // It may have been done later than all others.
		}
		done = e.acked
	}
	for _, e := range m.edits {
		if e.acked > 0 && e.acked < line && e.begun > done {
			return e
		}
	}
	return nil
}

// request is how a send is known to the server.
type request struct{ conversation, user, clientMessageID string }

// send is what the harness wants to be one message, in one or more attempts.
type send struct {
	name, user, conversation string
	clientMessageID          string
	begun                    int64 // the line of the first attempt
	floor, floored           int64 // the highest seq in the conversation that anybody had seen by then, and where
	possible                 int   // attempts that may have been done, or may yet be
	refused                  int64 // the line of the last refusal
	acked                    int64 // the line of the first acknowledgement
	message                  *message
}

func (c *Checker) beginSend(op *operation) {
	l := &op.line
	s := c.sends[l.Name]
	if s == nil {
		cv := c.conversation(l.Conversation)
		s = &send{name: l.Name, user: l.User, conversation: l.Conversation, clientMessageID: l.ClientMessageID, begun: l.N, floor: cv.top, floored: cv.topped}
		c.sends[l.Name] = s
		cv.sent = append(cv.sent, s)
		op.first = true
	}
	s.possible++
	if r := (request{l.Conversation, l.User, l.ClientMessageID}); l.ClientMessageID != "" {
		if c.requests[r] == nil {
			c.requests[r] = s
		}
		op.first = op.first && c.requests[r] == s
	}
}

func (c *Checker) endSend(op *operation, l *Line) {
	s := c.sends[op.line.Name]
	owner := c.requests[request{s.conversation, s.user, s.clientMessageID}]
	switch {
	case l.Phase == OK && len(l.Rows) == 1:
		c.available(op)
		c.early(op)
		row := &l.Rows[0]
		m := c.observe(row)
		switch {
		case owner != nil && owner != s:
			c.violated(Doubled, []int64{owner.begun, op.line.N}, "another send under the client_message_id of %s was acknowledged", owner.name)
		case row.Name != s.name && !row.Deleted:
			c.violated(Phantom, []int64{op.line.N}, "the send %s is answered by another message", s.name)
		case row.Deleted && m.send == nil && s.message == nil:
			m.send, s.message = s, m // Somebody deleted it before its sender heard of it.
		case row.Deleted && s.message != nil && s.message != m:
			c.violated(Doubled, []int64{s.message.seen}, "%s is two messages, %s and %s", s.name, s.message.id, m.id)
		}
		if s.acked == 0 {
			s.acked = l.N
		}
	case l.Refused():
		s.possible--
		s.refused = l.N
		if l.Code == "conflict" && (owner == nil || owner == s) {
			c.violated(Doubled, []int64{s.begun, op.line.N}, "%s, or its repetition, was refused as another's", s.name)
		}
	}
}

func (c *Checker) endEdit(op *operation, l *Line) {
	e := c.message(op.line.Message).edits[op.line.Version]
	switch {
	case l.Phase == OK:
		e.acked = l.N
		c.early(op)
		if len(l.Rows) == 1 {
			c.observe(&l.Rows[0])
		}
	case l.Refused():
		e.refused = l.N
	}
}

func (c *Checker) endDelete(op *operation, l *Line) {
	for _, d := range c.message(op.line.Message).deletions {
		switch {
		case d.op != op.line.Op:
		case l.Phase == OK:
			d.acked = l.N
		case l.Refused():
			d.refused = l.N
		}
	}
}

// observe learns from a row that somebody got, and judges it by what is known.
func (c *Checker) observe(row *Row) *message {
	cv, m := c.conversation(row.Conversation), c.message(row.ID)
	switch other := cv.messages[row.Seq]; {
	case m.in == nil:
		m.in, m.seq, m.seen = cv, row.Seq, c.n
		c.report.Messages++
		if other != nil {
			c.violated(Doubled, []int64{other.seen}, "the messages %s and %s have both seq %d", other.id, m.id, row.Seq)
		}
		cv.messages[row.Seq] = m
	case m.in != cv || m.seq != row.Seq:
		c.violated(Doubled, []int64{m.seen}, "the message %s has both seq %d and seq %d", m.id, m.seq, row.Seq)
	}
	if row.Seq > cv.top {
		cv.top, cv.topped = row.Seq, c.n
	}
	switch {
	case row.System != "":
		m.system = true
	case row.Deleted: // The row does not say any more what it was.
	case row.Name == "":
		c.violated(Phantom, nil, "nobody sent the message %s", row.ID)
	default:
		c.named(m, row)
	}
	return m
}

// named judges a row that shows a text of the harness's.
func (c *Checker) named(m *message, row *Row) {
	s := c.sends[row.Name]
	switch {
	case s == nil:
		c.violated(Phantom, nil, "nobody sent %q", row.Name)
		return
	case s.user != row.Sender || s.conversation != row.Conversation:
		c.violated(Phantom, []int64{s.begun}, "%s was sent by %s in %s, and is shown as %s's in %s", s.name, s.user, s.conversation, row.Sender, row.Conversation)
		return
	case s.message != nil && s.message != m:
		c.violated(Doubled, []int64{s.message.seen}, "%s is two messages, %s and %s", s.name, s.message.id, m.id)
		return
	case s.message == nil:
		s.message = m
		if row.Seq <= s.floor {
			c.violated(Reordered, []int64{s.floored, s.begun}, "%s has seq %d, and was sent when seq %d had been seen", s.name, row.Seq, s.floor)
		}
	}
	m.send = s
	if row.Version == 0 {
		return
	}
	e := m.edits[row.Version]
	if e == nil {
		c.violated(Phantom, []int64{m.seen}, "nobody made the edit %d of %s", row.Version, s.name)
		return
	}
	if e.shown == 0 {
		e.shown = c.n
	}
}
