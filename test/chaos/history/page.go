package history

import "math"

// page judges a page of a conversation's history: it shows everything in its range that was committed when it was asked for, but what may
// have been deleted.
func (c *Checker) page(op *operation, l *Line) {
	asked := &op.line
	cv := c.conversation(asked.Conversation)
	low, high := int64(1), int64(math.MaxInt64)
	if n := len(l.Rows); n > 0 && n >= asked.Limit {
		low, high = l.Rows[0].Seq, l.Rows[n-1].Seq
	}
	if asked.After > 0 {
		low = asked.After + 1
	} else {
		high = math.MaxInt64 // The newest ones, or those before a point, reach up to it.
	}
	if asked.Before > 0 {
		high = asked.Before - 1
	}
	shown := make(map[int64]bool, len(l.Rows))
	last := int64(0)
	for i := range l.Rows {
		row := &l.Rows[i]
		m := c.observe(row)
		c.got(asked.User, m)
		shown[row.Seq] = true
		switch e := m.superseded(row.Version, asked.N); {
		case row.Seq <= last:
			c.violated(Reordered, []int64{asked.N}, "a page shows seq %d behind seq %d", row.Seq, last)
		case asked.Final: // What it shows is judged with all pages together: see finish.
		case row.Deleted || m.deleted() > 0 && m.deleted() < asked.N:
			c.violated(Stale, []int64{m.deleted(), asked.N}, "a page shows %s, which has been deleted", row.ID)
		case e != nil && row.Name != "":
			c.violated(Stale, []int64{e.acked, asked.N}, "a page shows %s as it was before an acknowledged edit", row.ID)
		}
		last = row.Seq
	}
	if asked.Final {
		f := cv.final[asked.Node]
		if f == nil {
			f = &final{rows: map[int64]Row{}}
			cv.final[asked.Node] = f
		}
		f.line = l.N
		for _, row := range l.Rows {
			f.rows[row.Seq] = row
		}
		return // As above, what it lacks.
	}
	for seq := low; seq <= min(high, op.top); seq++ {
		m := cv.messages[seq]
		if shown[seq] || m != nil && m.mayBeDeleted() {
			continue
		}
		lines := []int64{op.topped, asked.N}
		if m != nil {
			lines = []int64{m.seen, asked.N}
		}
		c.violated(Stale, lines, "a page lacks seq %d of %s, and seq %d had been seen", seq, cv.id, op.top)
		break // One says enough.
	}
}
