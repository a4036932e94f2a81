package history

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// final is the history of a conversation as one node shows it in the end.
type final struct {
	line int64 // that showed the last page
	rows map[int64]Row
}

// Finish judges what can be judged only in the end, and returns the report.
func (c *Checker) Finish() Report {
	c.n = 0 // No line shows what is missing.
	c.tooLate()
	for _, id := range slices.Sorted(maps.Keys(c.conversations)) {
		cv := c.conversations[id]
		for _, node := range slices.Sorted(maps.Keys(cv.final)) {
			c.finish(cv, node, cv.final[node])
		}
	}
	c.refused()
	for _, name := range slices.Sorted(maps.Keys(c.devices)) {
		if d := c.devices[name]; d.complete && d.began > 0 {
			c.report.Devices++
			c.has(d)
		}
	}
	slices.SortStableFunc(c.report.Violations, func(a, b Violation) int { return cmp.Compare(a.Kind, b.Kind) })
	return c.report
}

// finish judges the final history of a conversation at a node.
func (c *Checker) finish(cv *conversation, node string, f *final) {
	for _, s := range cv.sent {
		if s.acked == 0 || s.message == nil || s.message.mayBeDeleted() {
			continue
		}
		if row, found := f.rows[s.message.seq]; !found || row.ID != s.message.id {
			c.violated(Lost, []int64{s.acked, f.line}, "%s, seq %d, was acknowledged and is not in the final history at %s", s.name, s.message.seq, node)
		}
	}
	top := cv.top
	for seq := range f.rows {
		top = max(top, seq)
	}
	members := maps.Clone(cv.first)
	for seq := int64(1); seq <= top; seq++ {
		m := cv.messages[seq]
		row, found := f.rows[seq]
		switch {
		case !found && m == nil:
			c.violated(Hole, []int64{f.line}, "nobody has seen seq %d of %s, and there are %d", seq, cv.id, top)
		case !found && !m.mayBeDeleted() && m.send == nil: // One that was sent is lost.
			c.violated(Hole, []int64{m.seen, f.line}, "seq %d of %s is not in the final history at %s", seq, cv.id, node)
		case !found:
		case m.deleted() > 0:
			c.violated(Undone, []int64{m.deleted(), f.line}, "%s was deleted, and is in the final history at %s", row.ID, node)
		case row.System == "member-added":
			for _, u := range row.Users {
				members[u] = true
			}
		case row.System == "member-removed":
			for _, u := range row.Users {
				delete(members, u)
			}
		case row.System == "" && len(cv.first) > 0 && !members[row.Sender]:
			c.violated(Leak, []int64{m.seen, f.line}, "seq %d of %s is from %s, who was no member there", seq, cv.id, row.Sender)
		}
		if found && row.Name != "" {
			if e := m.superseded(row.Version, math.MaxInt64); e != nil {
				c.violated(Undone, []int64{e.acked, f.line}, "an acknowledged edit of %s is not in the final history at %s", row.ID, node)
			}
		}
	}
}

// refused judges what was seen although all attempts at it were refused.
func (c *Checker) refused() {
	for _, name := range slices.Sorted(maps.Keys(c.sends)) {
		if s := c.sends[name]; s.message != nil && s.possible == 0 {
			c.violated(Phantom, []int64{s.refused, s.message.seen}, "%s was refused, and is there", s.name)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.messages)) {
		for _, e := range c.messages[id].edits {
			if e.shown > 0 && e.refused > 0 {
				c.violated(Phantom, []int64{e.refused, e.shown}, "an edit of %s was refused, and was done", id)
			}
		}
	}
}

// has judges that a device has all that was made, and all that was changed, since it began, in the conversations that its user is in.
func (c *Checker) has(d *device) {
	for _, id := range slices.Sorted(maps.Keys(c.conversations)) {
		cv := c.conversations[id]
		since, sure := cv.memberSince(d.user)
		if !sure || len(cv.final) == 0 {
			continue
		}
		since = max(since, d.began)
		// What was sent later got a higher seq, so from the first such message on everything is later.
		from := int64(math.MaxInt64)
		for seq, m := range cv.messages {
			if m.send != nil && m.send.begun > since {
				from = min(from, seq)
			}
		}
		f := cv.final[slices.Min(slices.Collect(maps.Keys(cv.final)))]
		v := d.view(id)
		missing := []int64{}
		for seq, m := range cv.messages {
			row, found := f.rows[seq]
			st := v.rows[seq]
			switch {
			case seq >= from && (st == nil || !st.made):
				missing = append(missing, seq)
			case !found && m.mayBeDeleted():
				if (seq >= from || m.deletedSince(since)) && (st == nil || !st.deleted) {
					c.violated(Gap, []int64{st.shownOn()}, "%s was not told that seq %d of %s is deleted", d.name, seq, id)
				}
			case found && (seq >= from || row.Version != 0 && m.edits[row.Version] != nil && m.edits[row.Version].begun > since):
				if st == nil || st.deleted || st.version != row.Version {
					c.violated(Gap, []int64{st.shownOn(), f.line}, "%s was not told the last edit of seq %d of %s", d.name, seq, id)
				}
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			m := cv.messages[missing[0]]
			c.violated(Gap, []int64{d.began, m.seen}, "%s never got %d messages of %s, the first is seq %d", d.name, len(missing), id, missing[0])
		}
	}
}

func (st *state) shownOn() int64 {
	if st == nil {
		return 0
	}
	return st.line
}

// deletedSince reports whether the message is deleted by what began after a line.
func (m *message) deletedSince(line int64) bool {
	for _, d := range m.deletions {
		if d.refused == 0 && d.begun <= line {
			return false
		}
	}
	return true
}
