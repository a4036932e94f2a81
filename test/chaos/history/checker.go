package history

import (
	"fmt"
	"time"
)

// A Checker judges a record, line by line.
type Checker struct {
	report Report
	alike  map[string]int // violations, by what is said of them
	n      int64          // the line being read
	micros int64

	operations    map[int64]*operation // those without an outcome
	conversations map[string]*conversation
	messages      map[string]*message // by id
	sends         map[string]*send    // by name
	requests      map[request]*send   // by client_message_id: the first one
	devices       map[string]*device
	sessions      map[int64]*session
	nodes         map[string]bool // that anything was asked of

	slow    map[string]slowness // faults that are on and slow acknowledgements down
	harms   int                 // faults that are on
	healing *healing            // not over yet
	quiet   bool
	doubts  []*absence // see absence
}

// operation is an invoked one.
type operation struct {
	line   Line // of its beginning
	first  bool // of a send or edit: nothing like it had been asked for before
	top    int64
	topped int64 // the line that showed top
	before map[string]Receipt
}

// slowness says that an acknowledgement takes a time at least.
type slowness struct {
	line, since, least int64 // the times in microseconds
}

// healing is the time from the end of the last fault to the first acknowledgement of each node.
type healing struct {
	line, since, most int64 // the times in microseconds
	acked             map[string]bool
}

// NewChecker begins.
func NewChecker() *Checker {
	return &Checker{
		report: Report{Operations: map[string]map[Phase]int{}, Refusals: map[string]int{}, Events: map[string]int{}, Faults: map[string]int{},
			Found: map[string]int{}},
		alike:      map[string]int{},
		operations: map[int64]*operation{}, conversations: map[string]*conversation{}, messages: map[string]*message{},
		sends: map[string]*send{}, requests: map[request]*send{}, devices: map[string]*device{}, sessions: map[int64]*session{},
		nodes: map[string]bool{}, slow: map[string]slowness{},
	}
}

// violated notes a violation, the lines that show it, and this one.
func (c *Checker) violated(kind string, lines []int64, format string, args ...any) {
	c.report.Found[kind]++
	if c.alike[format]++; c.alike[format] > violationsKept {
		return
	}
	v := Violation{Kind: kind, What: fmt.Sprintf(format, args...)}
	for _, n := range append(lines, c.n) {
		if n > 0 {
			v.Lines = append(v.Lines, n)
		}
	}
	c.report.Violations = append(c.report.Violations, v)
}

// Add takes the next line.
func (c *Checker) Add(l *Line) {
	c.n, c.micros = l.N, l.Micros
	switch l.Phase {
	case Mark:
		c.mark(l)
	case Event:
		c.report.Events[l.Kind]++
		c.event(l)
	case Invoke:
		c.count(l)
		op := &operation{line: *l}
		c.operations[l.Op] = op
		if l.Node != "" {
			c.nodes[l.Node] = true
		}
		c.begin(op)
	case OK, Fail, Unknown:
		c.count(l)
		if op := c.operations[l.Op]; op != nil {
			delete(c.operations, l.Op)
			c.end(op, l)
		}
	}
}

func (c *Checker) count(l *Line) {
	outcomes := c.report.Operations[l.Kind]
	if outcomes == nil {
		outcomes = map[Phase]int{}
		c.report.Operations[l.Kind] = outcomes
	}
	outcomes[l.Phase]++
	if l.Phase == Fail {
		c.report.Refusals[l.Code]++
	}
}

// begin notes what is known before an operation.
func (c *Checker) begin(op *operation) {
	l := &op.line
	switch l.Kind {
	case Send:
		c.beginSend(op)
	case Edit:
		op.first = true
		c.message(l.Message).edits[l.Version] = &change{begun: l.N}
	case Delete:
		m := c.message(l.Message)
		m.deletions = append(m.deletions, &change{begun: l.N, op: l.Op})
	case AddTo:
		c.beginAdd(op)
	case Remove:
		for _, u := range l.Users {
			c.conversation(l.Conversation).leaving[u] = l.N
		}
	case History:
		cv := c.conversation(l.Conversation)
		op.top, op.topped = cv.top, cv.topped
	case Members:
		op.before = c.conversation(l.Conversation).receiptsNow()
	case Connect:
		c.beginSession(op)
	}
}

// end judges the outcome of an operation.
func (c *Checker) end(op *operation, l *Line) {
	switch op.line.Kind {
	case Create:
		if l.Phase == OK {
			cv := c.conversation(l.Conversation)
			cv.created(op.line.User)
			for _, u := range op.line.Users {
				cv.created(u)
			}
		}
	case Send:
		c.endSend(op, l)
	case Edit:
		c.endEdit(op, l)
	case Delete:
		c.endDelete(op, l)
	case AddTo:
		c.endAdd(op, l)
	case Remove:
		c.endRemove(op, l)
	case History:
		if l.Phase == OK {
			c.page(op, l)
		}
	case Members:
		if l.Phase == OK {
			c.receipts(op, l)
		}
	case Sync:
		if l.Phase == OK {
			c.synced(op, l)
		}
	case Connect:
		if l.Phase == OK {
			c.connected(op, l)
		} else {
			c.disconnected(op.line.Session)
		}
	}
}

// early judges how soon op, which changes something, was acknowledged.
func (c *Checker) early(op *operation) {
	if !op.first {
		return // What is done already needs no sync.
	}
	for name, s := range c.slow {
		if op.line.Micros < s.since {
			continue
		}
		took, least := time.Duration(c.micros-op.line.Micros)*time.Microsecond, time.Duration(s.least)*time.Microsecond
		if c.report.SlowAcks++; c.report.SlowAcks == 1 || took < c.report.SoonestSlowAck {
			c.report.SoonestSlowAck = took
		}
		if took < least {
			c.violated(EarlyAck, []int64{s.line, op.line.N}, "a %s was acknowledged after %s, and with %s none can be durable before %s", op.line.Kind, took, name, least)
		}
	}
}

// mark takes what the harness did.
func (c *Checker) mark(l *Line) {
	switch l.Kind {
	case Disconnected:
		c.disconnected(l.Session)
	case Harm:
		c.harms++
		c.tooLate()
		c.healing = nil
	case Harmed:
		c.report.Faults[l.Fault]++
		if l.AckMillis > 0 {
			c.slow[l.Fault] = slowness{l.N, l.Micros, l.AckMillis * 1000}
		}
	case Heal:
		delete(c.slow, l.Fault)
	case Healed:
		c.harms--
		if c.harms == 0 && l.AckMillis > 0 {
			c.healing = &healing{l.N, l.Micros, l.AckMillis * 1000, map[string]bool{}}
		}
	case Settled:
		for _, a := range c.doubts {
			a.doubts = 0
		}
		c.doubts = nil
	case Quiet:
		c.quiet = true
		for _, d := range c.devices {
			d.complete = d.session != nil && d.session.live && !d.session.syncing
		}
	}
}

// available notes that a node acknowledged a send.
func (c *Checker) available(op *operation) {
	h := c.healing
	if h == nil || op.line.N < h.line || h.acked[op.line.Node] {
		return
	}
	h.acked[op.line.Node] = true
	after := c.micros - h.since
	c.report.AckedAfter = max(c.report.AckedAfter, time.Duration(after)*time.Microsecond)
	if after > h.most {
		c.violated(Unavailable, []int64{h.line, op.line.N}, "%s acknowledged a send %s after all was healed, and has %s", op.line.Node,
			time.Duration(after)*time.Microsecond, time.Duration(h.most)*time.Microsecond)
	}
}

// tooLate notes the nodes that have not acknowledged anything although their time is over.
func (c *Checker) tooLate() {
	h := c.healing
	if h == nil || c.micros-h.since <= h.most {
		return
	}
	for node := range c.nodes {
		if !h.acked[node] {
			c.violated(Unavailable, []int64{h.line}, "%s acknowledged no send for %s after all was healed, and has %s", node,
				time.Duration(c.micros-h.since)*time.Microsecond, time.Duration(h.most)*time.Microsecond)
		}
	}
}
