package history

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// story is a record made by hand: of the conversation c, made by ann with bob in it.
type story struct {
	lines  []Line
	ops    int64
	micros int64
}

func (s *story) add(l Line) {
	s.micros += 1000
	l.N, l.Micros = int64(len(s.lines)+1), s.micros
	s.lines = append(s.lines, l)
}

// begin adds the beginning of an operation in c at the node n1.
func (s *story) begin(l Line) int64 {
	s.ops++
	l.Phase, l.Op = Invoke, s.ops
	if l.Conversation == "" {
		l.Conversation = "c"
	}
	if l.Node == "" {
		l.Node = "n1"
	}
	s.add(l)
	return s.ops
}

func (s *story) end(phase Phase, op int64, l Line) {
	for _, begun := range s.lines {
		if begun.Op == op {
			l.Kind = begun.Kind
		}
	}
	l.Phase, l.Op = phase, op
	s.add(l)
}

func (s *story) ok(op int64, rows ...Row)      { s.end(OK, op, Line{Rows: rows}) }
func (s *story) refused(op int64, code string) { s.end(Fail, op, Line{Code: code}) }
func (s *story) unknown(op int64)              { s.end(Unknown, op, Line{}) }
func (s *story) mark(kind string)              { s.add(Line{Phase: Mark, Kind: kind}) }
func (s *story) fault(kind string, millis int64) {
	s.add(Line{Phase: Mark, Kind: kind, Fault: "slow", AckMillis: millis})
}

// A name begins with its sender: ann1.
func sender(name string) string { return strings.TrimRight(name, "0123456789") }

// said is a row of c: the message name at seq, made at the pos of its seq.
func said(name string, seq int64) Row {
	return Row{Conversation: "c", ID: fmt.Sprintf("m%d", seq), Seq: seq, Pos: seq, Sender: sender(name), Name: name}
}

// edited, deleted and told are other rows.
func edited(name string, seq, version, pos int64) Row {
	r := said(name, seq)
	r.Version, r.Pos = version, pos
	return r
}

func deleted(name string, seq, pos int64) Row {
	return Row{Conversation: "c", ID: fmt.Sprintf("m%d", seq), Seq: seq, Pos: pos, Sender: sender(name), Deleted: true}
}

func told(seq int64, system, user string) Row {
	return Row{Conversation: "c", ID: fmt.Sprintf("m%d", seq), Seq: seq, Pos: seq, Sender: "ann", System: system, Users: []string{user}}
}

func (s *story) send(name string) int64 {
	return s.begin(Line{Kind: Send, User: sender(name), Name: name, ClientMessageID: name})
}

// sent is a send that is acknowledged.
func (s *story) sent(name string, seq int64) { s.ok(s.send(name), said(name, seq)) }

func (s *story) edit(name string, seq, version int64) int64 {
	return s.begin(Line{Kind: Edit, User: sender(name), Name: name, Message: fmt.Sprintf("m%d", seq), Seq: seq, Version: version})
}

func (s *story) delete(name string, seq int64) int64 {
	return s.begin(Line{Kind: Delete, User: sender(name), Message: fmt.Sprintf("m%d", seq), Seq: seq})
}

func (s *story) add1(user string) int64 {
	return s.begin(Line{Kind: AddTo, User: "ann", Users: []string{user}})
}
func (s *story) remove(user string) int64 {
	return s.begin(Line{Kind: Remove, User: "ann", Users: []string{user}})
}

// read is a whole page of c, and last the final history at a node.
func (s *story) read(user string, rows ...Row) {
	s.ok(s.begin(Line{Kind: History, User: user, Limit: 50}), rows...)
}

func (s *story) last(node string, rows ...Row) {
	s.ok(s.begin(Line{Kind: History, User: "ann", Node: node, Limit: 50, Final: true}), rows...)
}

// connect signs bob in on a session; a cursor that is not empty was got before.
func (s *story) connect(session int64, cursor string) {
	op := s.begin(Line{Kind: Connect, User: "bob", Device: "bob.0", Session: session, Cursor: cursor})
	if cursor == "" {
		cursor = "start"
	}
	s.end(OK, op, Line{Session: session, Cursor: cursor})
}

func (s *story) event(session int64, kind string, rows ...Row) {
	s.add(Line{Phase: Event, Kind: kind, Session: session, Conversation: "c", Rows: rows})
}

func (s *story) got(session int64, rows ...Row) {
	for _, row := range rows {
		s.event(session, "new-message", row)
	}
}

func (s *story) cursor(session int64, cursor string) {
	s.add(Line{Phase: Event, Kind: "cursor", Session: session, Cursor: cursor})
}

func (s *story) leave(session int64) { s.add(Line{Phase: Mark, Kind: Disconnected, Session: session}) }

func (s *story) sync(session int64, device, cursor, next string, more bool, rows ...Row) {
	s.end(OK, s.begin(Line{Kind: Sync, User: "bob", Device: device, Session: session, Cursor: cursor}), Line{Cursor: next, More: more, Rows: rows})
}

func (s *story) members(op int64, receipts ...Receipt) { s.end(OK, op, Line{Receipts: receipts}) }

// The stories. Those that want a violation are followed by the nearest ones that do not.
var stories = []struct {
	name string
	want string // the kinds, sorted, with spaces between them
	tell func(s *story)
}{
	{"an acknowledged send is in no history", Lost, func(s *story) {
		s.sent("ann1", 1)
		s.last("n1")
	}},
	{"an acknowledged send is missing at one of two nodes", Lost, func(s *story) {
		s.sent("ann1", 1)
		s.last("n1", said("ann1", 1))
		s.last("n2")
	}},
	{"another message has the place of an acknowledged send", Doubled + " " + Lost + " " + Phantom, func(s *story) {
		s.sent("ann1", 1)
		s.last("n1", Row{Conversation: "c", ID: "other", Seq: 1, Pos: 1, Sender: "ann"})
	}},
	{"a deleted one is in no history", "", func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.delete("ann1", 1))
		s.last("n1")
	}},
	{"one whose deletion has no answer is in no history", "", func(s *story) {
		s.sent("ann1", 1)
		s.unknown(s.delete("ann1", 1))
		s.last("n1")
	}},
	{"one whose deletion was refused is in no history", Lost, func(s *story) {
		s.sent("ann1", 1)
		s.refused(s.delete("ann1", 1), "forbidden")
		s.last("n1")
	}},
	{"a send without an answer is in no history", "", func(s *story) {
		s.unknown(s.send("ann1"))
		s.last("n1")
	}},

	{"an acknowledgement comes sooner than a sync ends", EarlyAck, func(s *story) {
		s.fault(Harmed, 300)
		s.sent("ann1", 1)
	}},
	{"an acknowledgement comes as late as it must", "", func(s *story) {
		s.fault(Harmed, 300)
		op := s.send("ann1")
		s.micros += 300_000
		s.ok(op, said("ann1", 1))
	}},
	{"a send from before, and one from after syncs are slow", "", func(s *story) {
		op := s.send("ann1")
		s.fault(Harmed, 300)
		s.ok(op, said("ann1", 1))
		s.fault(Heal, 0)
		s.sent("ann2", 2)
	}},
	{"a repetition needs no sync", "", func(s *story) {
		s.unknown(s.send("ann1"))
		s.fault(Harmed, 300)
		s.sent("ann1", 1)
	}},

	{"a repetition becomes a second message", Doubled, func(s *story) {
		s.sent("ann1", 1)
		s.sent("ann1", 2)
	}},
	{"a repetition is answered by the first message, edited and then deleted", "", func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 2))
		s.ok(s.send("ann1"), edited("ann1", 1, 7, 2))
		s.ok(s.delete("ann1", 1))
		s.ok(s.send("ann1"), deleted("ann1", 1, 3))
	}},
	{"a repetition is refused as another's", Doubled, func(s *story) {
		s.sent("ann1", 1)
		s.refused(s.send("ann1"), "conflict")
	}},
	{"two messages have one seq", Doubled, func(s *story) {
		op := s.send("ann2")
		s.sent("ann1", 1)
		row := said("ann2", 1)
		row.ID = "other"
		s.ok(op, row)
		s.read("bob", row)
	}},
	{"another send under a used client_message_id is taken", Doubled, func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.begin(Line{Kind: Send, User: "ann", Name: "ann2", ClientMessageID: "ann1"}), said("ann2", 2))
	}},
	{"another send under a used client_message_id is refused", "", func(s *story) {
		s.sent("ann1", 1)
		s.refused(s.begin(Line{Kind: Send, User: "ann", Name: "ann2", ClientMessageID: "ann1"}), "conflict")
		s.last("n1", said("ann1", 1))
	}},
	{"an event comes twice on a connection", Doubled, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1), said("ann1", 1))
	}},
	{"a change comes twice on a connection", Doubled, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 2))
		s.event(1, "message-updated", edited("ann1", 1, 7, 2))
		s.event(1, "message-updated", edited("ann1", 1, 7, 2))
	}},
	{"what the cursor covered comes again", Doubled, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1))
		s.cursor(1, "k1")
		s.leave(1)
		s.connect(2, "k1")
		s.got(2, said("ann1", 1))
	}},
	{"what came behind the cursor comes again", "", func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.got(1, said("ann1", 1))
		s.cursor(1, "k1")
		s.got(1, said("ann2", 2))
		s.leave(1)
		s.connect(2, "k1")
		s.got(2, said("ann2", 2))
	}},

	{"what came on an earlier connection, behind its cursor, comes again and again", "", func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.got(1, said("ann1", 1), said("ann2", 2))
		s.leave(1)
		s.connect(2, "start")
		s.got(2, said("ann1", 1))
		s.cursor(2, "k1")
		s.leave(2)
		s.connect(3, "k1")
		s.got(3, said("ann2", 2))
	}},
	{"what an earlier cursor covered comes again", Doubled, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1))
		s.cursor(1, "k1")
		s.leave(1)
		s.connect(2, "k1")
		s.cursor(2, "k2")
		s.leave(2)
		s.connect(3, "k2")
		s.got(3, said("ann1", 1))
	}},

	{"a later send has the smaller seq", Reordered, func(s *story) {
		s.sent("ann1", 2)
		s.sent("bob1", 1)
	}},
	{"a send that was under way has the smaller seq", "", func(s *story) {
		op := s.send("bob1")
		s.sent("ann1", 2)
		s.ok(op, said("bob1", 1))
	}},
	{"events come in another order", Reordered + " " + Gap, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.sent("ann3", 3)
		s.got(1, said("ann1", 1), said("ann3", 3), said("ann2", 2))
	}},
	{"a page is in another order", Reordered, func(s *story) {
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.read("bob", said("ann2", 2), said("ann1", 1))
	}},

	{"an event is left out", Gap, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.sent("ann3", 3)
		s.got(1, said("ann1", 1), said("ann3", 3))
	}},
	{"a replay leaves the first message out", Gap, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1))
		s.cursor(1, "k1")
		s.leave(1)
		s.sent("ann2", 2)
		s.sent("ann3", 3)
		s.connect(2, "k1")
		s.got(2, said("ann3", 3))
	}},
	{"a replay leaves everything out", Gap, func(s *story) {
		s.connect(1, "")
		s.leave(1)
		s.sent("ann1", 1)
		s.connect(2, "start")
		s.mark(Quiet)
		s.last("n1", said("ann1", 1))
	}},
	{"a replay leaves a change out", Gap, func(s *story) {
		s.sent("ann1", 1)
		s.connect(1, "")
		s.leave(1)
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 2))
		s.connect(2, "start")
		s.mark(Quiet)
		s.last("n1", edited("ann1", 1, 7, 2))
	}},
	{"a replay leaves a deletion out", Gap, func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1))
		s.ok(s.delete("ann1", 1))
		s.mark(Quiet)
		s.last("n1")
	}},
	{"everything comes, live, replayed and synced", "", func(s *story) {
		s.sent("ann1", 1)
		s.connect(1, "")
		s.sent("ann2", 2)
		s.got(1, said("ann2", 2))
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 3))
		s.event(1, "message-updated", edited("ann1", 1, 7, 3))
		s.cursor(1, "k1")
		s.leave(1)
		s.sent("ann4", 3)
		s.sent("ann5", 4)
		s.ok(s.delete("ann2", 2))
		s.connect(2, "k1")
		s.event(2, "sync_required")
		s.sent("ann6", 5)
		s.got(2, said("ann6", 5))
		s.sync(2, "bob.0", "k1", "k2", true, said("ann4", 3), deleted("ann2", 2, 9))
		s.sync(2, "bob.0", "k2", "k3", false, said("ann5", 4))
		s.mark(Quiet)
		s.last("n1", edited("ann1", 1, 7, 3), said("ann4", 3), said("ann5", 4), said("ann6", 5))
	}},
	{"a page of sync leaves a message out", Gap, func(s *story) {
		s.sync(0, "archive", "", "k0", false)
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.mark(Quiet)
		s.sync(0, "archive", "k0", "k1", false, said("ann2", 2))
		s.last("n1", said("ann1", 1), said("ann2", 2))
	}},
	{"a cursor is answered with reset", Gap, func(s *story) {
		s.connect(1, "")
		s.leave(1)
		s.connect(2, "start")
		s.add(Line{Phase: Event, Kind: "sync_required", Session: 2, Cursor: "k1", Reset: true})
	}},
	{"the newest page of a group that one comes to lacks what was deleted", "", func(s *story) {
		s.connect(1, "")
		s.ok(s.remove("bob"))
		s.event(1, "conversation-removed")
		s.leave(1)
		s.sent("ann1", 1)
		s.sent("ann2", 2)
		s.ok(s.delete("ann2", 2))
		s.sent("ann3", 3)
		s.ok(s.add1("bob"))
		s.connect(2, "start")
		s.event(2, "conversation-added")
		s.got(2, said("ann1", 1), said("ann3", 3))
	}},

	{"a read lacks what was acknowledged before", Stale, func(s *story) {
		s.sent("ann1", 1)
		s.read("bob")
	}},
	{"a read lacks what was acknowledged meanwhile", "", func(s *story) {
		op := s.begin(Line{Kind: History, User: "bob", Limit: 50})
		s.sent("ann1", 1)
		s.ok(op)
	}},
	{"a read lacks what another one showed", Stale, func(s *story) {
		s.unknown(s.send("ann1"))
		s.read("bob", said("ann1", 1))
		s.read("bob")
	}},
	{"a page shows its range only", "", func(s *story) {
		for i := range int64(5) {
			s.sent(fmt.Sprintf("ann%d", i), i+1)
		}
		s.ok(s.begin(Line{Kind: History, User: "bob", Limit: 2}), said("ann3", 4), said("ann4", 5))
		s.ok(s.begin(Line{Kind: History, User: "bob", Limit: 2, Before: 4}), said("ann1", 2), said("ann2", 3))
		s.ok(s.begin(Line{Kind: History, User: "bob", Limit: 2, After: 1}), said("ann1", 2), said("ann2", 3))
	}},
	{"a page skips one in its range", Stale, func(s *story) {
		for i := range int64(5) {
			s.sent(fmt.Sprintf("ann%d", i), i+1)
		}
		s.ok(s.begin(Line{Kind: History, User: "bob", Limit: 2, After: 1}), said("ann1", 2), said("ann3", 4))
	}},
	{"a read shows a text from before an acknowledged edit", Stale, func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 2))
		s.read("bob", said("ann1", 1))
	}},
	{"a read shows one of two edits that were made at once", "", func(s *story) {
		s.sent("ann1", 1)
		one, two := s.edit("ann1", 1, 7), s.edit("ann1", 1, 8)
		s.ok(one, edited("ann1", 1, 7, 3))
		s.ok(two, edited("ann1", 1, 8, 2))
		s.read("bob", edited("ann1", 1, 7, 3))
	}},
	{"a read shows what had been deleted", Stale, func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.delete("ann1", 1))
		s.read("bob", said("ann1", 1))
	}},

	{"a seq is missing in the end", Hole, func(s *story) {
		op := s.send("ann1")
		s.ok(op, said("ann1", 2))
		s.last("n1", said("ann1", 2))
	}},
	{"a system message is missing in the end", Hole, func(s *story) {
		s.ok(s.add1("eve"))
		s.read("ann", told(1, "member-added", "eve"))
		s.last("n1")
	}},

	{"a message that nobody sent", Phantom, func(s *story) { s.read("bob", said("ann1", 1)) }},
	{"a message under another's name", Phantom, func(s *story) {
		row := said("ann1", 1)
		row.Sender = "bob"
		s.unknown(s.send("ann1"))
		s.read("bob", row)
	}},
	{"a refused send is there", Phantom, func(s *story) {
		s.refused(s.send("ann1"), "forbidden")
		s.read("bob", said("ann1", 1))
	}},
	{"a send that was refused when it was repeated is there", "", func(s *story) {
		s.unknown(s.send("ann1"))
		s.refused(s.send("ann1"), "not_found")
		s.read("bob", said("ann1", 1))
	}},
	{"a send that failed for a while is there", "", func(s *story) {
		s.refused(s.send("ann1"), "unavailable")
		s.read("bob", said("ann1", 1))
	}},
	{"an edit that nobody made", Phantom, func(s *story) {
		s.sent("ann1", 1)
		s.read("bob", edited("ann1", 1, 7, 2))
	}},
	{"a refused edit was done", Phantom, func(s *story) {
		s.sent("ann1", 1)
		s.refused(s.edit("ann1", 1, 7), "forbidden")
		s.read("bob", edited("ann1", 1, 7, 2))
	}},

	{"an acknowledged edit is gone in the end", Undone, func(s *story) {
		s.sent("ann1", 1)
		op := s.begin(Line{Kind: History, User: "ann", Limit: 50, Final: true})
		s.ok(s.edit("ann1", 1, 7), edited("ann1", 1, 7, 2))
		s.ok(op, said("ann1", 1))
	}},
	{"a deleted message is there in the end", Undone, func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.delete("ann1", 1))
		s.last("n1", said("ann1", 1))
	}},
	{"an edit without an answer is done after a later one", "", func(s *story) {
		s.sent("ann1", 1)
		s.unknown(s.edit("ann1", 1, 7))
		s.ok(s.edit("ann1", 1, 8), edited("ann1", 1, 8, 2))
		s.last("n1", edited("ann1", 1, 7, 3))
	}},

	{"one who was removed gets what was sent later", Leak, func(s *story) {
		s.connect(1, "")
		s.ok(s.remove("bob"))
		s.sent("ann1", 2)
		s.got(1, said("ann1", 2))
	}},
	{"one who was removed gets what had been sent before", "", func(s *story) {
		s.connect(1, "")
		op := s.send("ann1")
		s.ok(s.remove("bob"))
		s.ok(op, said("ann1", 1))
		s.got(1, said("ann1", 1))
	}},
	{"one who was removed reads what was sent later", Leak, func(s *story) {
		s.ok(s.remove("bob"))
		s.sent("ann1", 2)
		s.ok(s.begin(Line{Kind: History, User: "bob", Limit: 1}), said("ann1", 2))
	}},
	{"one who may have been added again gets what was sent", "", func(s *story) {
		s.connect(1, "")
		s.unknown(s.add1("bob"))
		s.ok(s.remove("bob"))
		s.sent("ann1", 3)
		s.got(1, said("ann1", 3))
	}},
	{"one who was added again, long before he was removed, gets what was sent later", Leak, func(s *story) {
		s.connect(1, "")
		s.unknown(s.add1("bob"))
		s.mark(Settled)
		s.ok(s.remove("bob"))
		s.sent("ann1", 3)
		s.got(1, said("ann1", 3))
	}},
	{"something comes behind conversation-removed", Leak, func(s *story) {
		s.connect(1, "")
		op := s.remove("bob")
		s.event(1, "conversation-removed")
		s.unknown(s.send("ann1"))
		s.got(1, said("ann1", 1))
		s.ok(op)
	}},
	{"a stranger gets a message", Leak, func(s *story) {
		s.sent("ann1", 1)
		s.ok(s.begin(Line{Kind: History, User: "eve", Limit: 50}), said("ann1", 1))
	}},
	{"one who was removed wrote something behind his removal", Leak, func(s *story) {
		op := s.send("bob1")
		s.ok(s.remove("bob"))
		s.ok(op, said("bob1", 2))
		s.last("n1", told(1, "member-removed", "bob"), said("bob1", 2))
	}},
	{"one who was removed wrote something before, and after he came back", "", func(s *story) {
		op := s.send("bob1")
		s.ok(s.remove("bob"))
		s.ok(op, said("bob1", 1))
		s.ok(s.add1("bob"))
		s.sent("bob2", 4)
		s.last("n1", said("bob1", 1), told(2, "member-removed", "bob"), told(3, "member-added", "bob"), said("bob2", 4))
	}},

	{"a receipt falls", Backwards, func(s *story) {
		s.members(s.begin(Line{Kind: Members, User: "ann"}), Receipt{"bob", 5, 5})
		s.members(s.begin(Line{Kind: Members, User: "ann"}), Receipt{"bob", 5, 4})
	}},
	{"two lists are asked for at once", "", func(s *story) {
		one, two := s.begin(Line{Kind: Members, User: "ann"}), s.begin(Line{Kind: Members, User: "ann"})
		s.members(two, Receipt{"bob", 5, 5})
		s.members(one, Receipt{"bob", 4, 4})
	}},

	{"nothing is acknowledged when all is healed", Unavailable, func(s *story) {
		s.send("ann1")
		s.fault(Harm, 0)
		s.fault(Harmed, 0)
		s.fault(Heal, 0)
		s.fault(Healed, 2000)
		s.send("ann2")
		s.micros += 3e6
		s.mark(Settled)
	}},
	{"one of two nodes is late", Unavailable, func(s *story) {
		s.begin(Line{Kind: Send, User: "ann", Name: "ann0", Node: "n2"})
		s.fault(Harm, 0)
		s.fault(Healed, 2000)
		s.sent("ann1", 1)
		s.micros += 3e6
		s.ok(s.begin(Line{Kind: Send, User: "ann", Name: "ann2", Node: "n2"}), said("ann2", 2))
	}},
	{"a send is acknowledged in time", "", func(s *story) {
		s.fault(Harm, 0)
		s.fault(Healed, 2000)
		s.micros += 1e6
		s.sent("ann1", 1)
		s.micros += 3e6
		s.mark(Settled)
	}},
	{"the next fault comes before the time is over", "", func(s *story) {
		s.send("ann1")
		s.fault(Harm, 0)
		s.fault(Healed, 2000)
		s.micros += 1e6
		s.fault(Harm, 0)
	}},
}

func TestStories(t *testing.T) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			r := tell(story.tell).Finish()
			got := slices.Sorted(maps.Keys(r.Found))
			want := strings.Fields(strings.ReplaceAll(story.want, EarlyAck, "early"))
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "early", EarlyAck)
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
				for _, v := range r.Violations {
					t.Logf("%s: %s (lines %v)", v.Kind, v.What, v.Lines)
				}
			}
		})
	}
}

// Every kind of violation can be found.
func TestStoriesShowEveryKind(t *testing.T) {
	for _, kind := range []string{Lost, EarlyAck, Doubled, Reordered, Gap, Stale, Hole, Phantom, Undone, Leak, Backwards, Unavailable} {
		shown := false
		for _, story := range stories {
			shown = shown || strings.Contains(story.want, kind)
		}
		if !shown {
			t.Errorf("no story has the violation %q", kind)
		}
	}
}

func tell(f func(*story)) *Checker {
	s := &story{}
	s.ok(s.begin(Line{Kind: Create, User: "ann", Users: []string{"bob"}}))
	s.lines[1].Conversation = "c"
	f(s)
	c := NewChecker()
	for i := range s.lines {
		c.Add(&s.lines[i])
	}
	return c
}

// Only clients that are there when all is quiet are compared with the final history.
func TestComparedDevices(t *testing.T) {
	gone := func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.leave(1)
		s.mark(Quiet)
		s.last("n1", said("ann1", 1))
	}
	if r := tell(gone).Finish(); r.Devices != 0 || len(r.Found) != 0 {
		t.Errorf("a client that left: %d compared, found %v, want none", r.Devices, r.Found)
	}
	there := func(s *story) {
		s.connect(1, "")
		s.sent("ann1", 1)
		s.got(1, said("ann1", 1))
		s.mark(Quiet)
		s.last("n1", said("ann1", 1))
	}
	if r := tell(there).Finish(); r.Devices != 1 || len(r.Found) != 0 {
		t.Errorf("a client that stayed: %d compared, found %v, want 1 and none", r.Devices, r.Found)
	}
}

func TestRecordAndCheck(t *testing.T) {
	var b bytes.Buffer
	r := NewRecorder(&b)
	op := r.Op()
	r.Add(Line{Phase: Invoke, Kind: Send, Op: op, User: "ann", Conversation: "c", Name: "ann1", Node: "n1"})
	r.Add(Line{Phase: OK, Kind: Send, Op: op, Rows: []Row{said("ann1", 1)}})
	op = r.Op()
	r.Add(Line{Phase: Invoke, Kind: History, Op: op, User: "ann", Conversation: "c", Node: "n1", Limit: 50})
	r.Add(Line{Phase: OK, Kind: History, Op: op})
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	report, err := Check(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	if report.Found[Stale] != 1 || len(report.Violations) != 1 {
		t.Fatalf("found %v, want one read that is stale", report.Found)
	}
	v := report.Violations[0]
	if len(v.Texts) != 3 || !strings.Contains(v.Texts[0], `"name":"ann1"`) || !strings.Contains(v.Texts[1], `"limit":50`) {
		t.Errorf("the violation shows %q, want the lines of the send, the question and the answer", v.Texts)
	}
	last := int64(-1)
	err = Read(&b, func(l *Line, _ []byte) {
		if l.Micros < last {
			t.Errorf("line %d is of %d, before %d", l.N, l.Micros, last)
		}
		last = l.Micros
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Read(strings.NewReader("{\n"), func(*Line, []byte) {}); err == nil {
		t.Error("a record that is no JSON is read")
	}
}
