package history

// absence is what is known of a user who may be no member of a conversation.
type absence struct {
	since  int64 // the line that acknowledged his removal, if nobody began to add him since; 0: he may be a member
	adding int   // additions under way
	doubts int   // additions whose answer never came: they may be done later. Settled ends them.
}

func (cv *conversation) absence(user string) *absence {
	a := cv.absences[user]
	if a == nil {
		a = &absence{}
		cv.absences[user] = a
	}
	return a
}

func (c *Checker) beginAdd(op *operation) {
	cv := c.conversation(op.line.Conversation)
	for _, u := range op.line.Users {
		cv.invited[u] = true
		a := cv.absence(u)
		a.since = 0
		a.adding++
	}
}

func (c *Checker) endAdd(op *operation, l *Line) {
	cv := c.conversation(op.line.Conversation)
	for _, u := range op.line.Users {
		a := cv.absence(u)
		a.adding--
		if l.Phase == OK {
			cv.entered[u] = l.N
		} else if !l.Refused() {
			a.doubts++
			c.doubts = append(c.doubts, a)
		}
	}
}

func (c *Checker) endRemove(op *operation, l *Line) {
	cv := c.conversation(op.line.Conversation)
	if l.Phase != OK || len(op.line.Users) != 1 {
		return
	}
	if a := cv.absence(op.line.Users[0]); a.adding == 0 && a.doubts == 0 {
		a.since = l.N
	}
}

// memberSince returns the line from which on the user is a member, 0 for always. It is not sure while somebody may have removed him since.
func (cv *conversation) memberSince(user string) (line int64, sure bool) {
	line = cv.entered[user]
	return line, line > cv.leaving[user] || cv.first[user] && cv.leaving[user] == 0
}

// got judges that a user got a message.
func (c *Checker) got(user string, m *message) {
	cv := m.in
	if !cv.invited[user] {
		c.violated(Leak, []int64{m.seen}, "%s got %s of a conversation that he was never in", user, m.id)
		return
	}
	a := cv.absences[user]
	if a == nil || a.since == 0 || m.send == nil || m.send.begun < a.since {
		return
	}
	c.violated(Leak, []int64{a.since, m.send.begun}, "%s got %s, which was sent when his removal had been acknowledged", user, m.send.name)
}

// seen is what was last seen of a member.
type seen struct {
	Receipt
	delivered, read int64 // the lines that showed it
}

func (cv *conversation) receiptsNow() map[string]Receipt {
	now := make(map[string]Receipt, len(cv.shown))
	for u, s := range cv.shown {
		now[u] = s.Receipt
	}
	return now
}

// receipts judges a list of members by those that had been seen when it was asked for.
func (c *Checker) receipts(op *operation, l *Line) {
	cv := c.conversation(op.line.Conversation)
	for _, r := range l.Receipts {
		s := cv.shown[r.User]
		if was := op.before[r.User]; r.Delivered < was.Delivered {
			c.violated(Backwards, []int64{s.delivered, op.line.N}, "the delivered_seq of %s fell from %d to %d", r.User, was.Delivered, r.Delivered)
		} else if r.Read < was.Read {
			c.violated(Backwards, []int64{s.read, op.line.N}, "the read_seq of %s fell from %d to %d", r.User, was.Read, r.Read)
		}
		s.User = r.User
		if r.Delivered > s.Delivered {
			s.Delivered, s.delivered = r.Delivered, l.N
		}
		if r.Read > s.Read {
			s.Read, s.read = r.Read, l.N
		}
		cv.shown[r.User] = s
	}
}
