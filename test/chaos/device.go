package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

const (
	socketPath = "/socket.io/?EIO=4&transport=websocket"
	// bufferBytes is the read buffer of a connection.
	bufferBytes = 4 << 10
	// stallMax is how long an operation on a connection may usually stay unanswered before the device gives the connection up, and comes
	// back somewhere else.
	stallMax = 5 * time.Second
	// windowUsual is the usual window of a device, and how many drafts it may keep.
	windowUsual = 16
	// retryAfter is how long a device waits before it sends again what the server could not do.
	retryAfter = 300 * time.Millisecond
)

// device is a client of a person: one connection at a time, with a cursor that it keeps, and drafts that it sends until it knows their
// outcome, under the same client_message_id.
type device struct {
	run    *run
	person *person
	name   string
	random *rand.Rand // used by the goroutine of live alone
	asking chan struct{}
	habits

	mu     sync.Mutex
	cursor string
	drafts []*pending
	is     *connection // nil between two
}

// habits are what a device does, and when. Each function may use the device's random alone.
type habits struct {
	act   func(c *connection, ctx context.Context) // something, whenever pause is over
	pause func(*rand.Rand) time.Duration
	stay  func(*rand.Rand) time.Duration // until it ends its connection
	away  func(*rand.Rand) time.Duration // until it connects again
	stall time.Duration                  // see stallMax
	// window is how many operations of a connection may be unanswered; beyond that the device does nothing.
	window int
}

// pending is a draft whose outcome is not known.
type pending struct {
	*draft
	under bool // way: an attempt has no outcome yet
	next  time.Time
}

// connection is one of a device's.
type connection struct {
	*device
	conn  *bench.Conn
	id    int64
	node  *world.Node
	ended chan struct{} // closed when the reader has ended and all is recorded

	// Guarded by device.mu.
	live     bool // authenticated came
	syncing  bool
	caughtUp time.Time          // the first cursor came: everything from before it was there
	waiting  map[int64]*awaited // by the number of the acknowledgement
	number   int64
}

// awaited is an operation without an outcome.
type awaited struct {
	line  history.Line
	since time.Time
	done  func(l *history.Line, answer json.RawMessage) // puts an answer into the line of the outcome; called without a lock
	after func(l *history.Line)                         // called when the outcome is recorded, unknown included; nil: nothing
}

// live comes and goes until ctx ends.
func (d *device) live(ctx context.Context) {
	for ctx.Err() == nil {
		d.run.gate.wait(ctx)
		nodes := d.run.world.Nodes()
		c, err := d.connect(ctx, nodes[d.random.IntN(len(nodes))])
		if err == nil {
			c.stay(ctx)
		}
		away := d.away(d.random)
		switch {
		case err != nil:
			away = time.Duration(100+d.random.IntN(200)) * time.Millisecond
		case !d.run.parting.Load():
			away = min(away, retryAfter)
		}
		d.run.sleep(ctx, away)
	}
}

// connect opens a connection and signs in with the cursor; that it is done is an event.
func (d *device) connect(ctx context.Context, node *world.Node) (*connection, error) {
	c := &connection{device: d, id: d.run.sessions.Add(1), node: node, ended: make(chan struct{}), waiting: map[int64]*awaited{}}
	d.mu.Lock()
	cursor := d.cursor
	d.mu.Unlock()
	l := history.Line{Phase: history.Invoke, Kind: history.Connect, Op: d.run.rec.Op(), Session: c.id, Device: d.name, User: d.person.name, Node: node.Name, Cursor: cursor}
	d.run.rec.Add(l)
	auth, err := json.Marshal(map[string]string{"token": d.run.world.Token(d.person.name), "cursor": cursor})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.stall)
	defer cancel()
	if c.conn, err = bench.Dial(ctx, node.Address(), socketPath, bufferBytes); err == nil {
		if err = c.conn.Write("40" + string(auth)); err != nil {
			c.conn.Close()
		}
	}
	if err != nil {
		d.run.rec.Add(history.Line{Phase: history.Unknown, Kind: l.Kind, Op: l.Op, Code: "no connection"})
		return nil, err
	}
	d.mu.Lock()
	d.is = c
	c.waiting[connecting] = &awaited{line: l, since: time.Now()}
	d.mu.Unlock()
	go c.read()
	return c, nil
}

// connecting stands for signing in among the operations that wait for an answer; no acknowledgement has this number.
const connecting = -1

// stay acts now and then until it is time to go, the connection breaks, or ctx ends.
func (c *connection) stay(ctx context.Context) {
	until := time.NewTimer(c.habits.stay(c.random))
	defer until.Stop()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-ctx.Done():
			c.part(0)
			return
		case <-until.C:
			if c.run.parting.Load() {
				c.part(c.random.IntN(3))
				return
			}
		case <-tick.C:
			tick.Reset(c.pause(c.random))
			if c.stalled() {
				c.part(1)
				return
			}
			c.flush()
			if c.run.acting.Load() && c.idle() {
				c.act(c, ctx)
			}
		}
	}
}

// part ends the connection, in one of three ways, and waits until nothing more of it is recorded.
func (c *connection) part(how int) {
	switch how {
	case 0:
		_ = c.conn.Write("41") // If it fails the connection is closed without a word.
	case 1:
		_ = c.conn.TCP.SetLinger(0) // As above: a reset is only another way.
	}
	c.conn.Close()
	<-c.ended
}

// stalled reports whether the server owes an answer for too long.
func (c *connection) stalled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.waiting {
		if time.Since(a.since) > c.stall {
			return true
		}
	}
	return false
}

// idle reports whether the connection is signed in, and not too much is unanswered.
func (c *connection) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live && len(c.waiting) < c.window && len(c.drafts) < windowUsual
}

// flush sends the drafts whose time has come.
func (c *connection) flush() {
	c.mu.Lock()
	if !c.live {
		c.mu.Unlock()
		return
	}
	var due []*pending
	for _, p := range c.drafts {
		if !p.under && time.Now().After(p.next) {
			p.under = true
			due = append(due, p)
		}
	}
	c.mu.Unlock()
	for _, p := range due {
		c.send(p)
	}
}

// emit does the operation that l describes as an event on the connection.
func (c *connection) emit(l history.Line, event string, payload any, done func(l *history.Line, answer json.RawMessage), after func(l *history.Line)) {
	l.Phase, l.Op, l.Session, l.User, l.Device, l.Node = history.Invoke, c.run.rec.Op(), c.id, c.person.name, c.name, c.node.Name
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // Texts and numbers are always JSON.
	}
	c.mu.Lock()
	if c.waiting == nil { // The connection has ended.
		c.mu.Unlock()
		if after != nil {
			after(&history.Line{Phase: history.Unknown})
		}
		return
	}
	c.number++
	number := c.number
	c.waiting[number] = &awaited{line: l, since: time.Now(), done: done, after: after}
	c.run.rec.Add(l)
	c.mu.Unlock()
	_ = c.conn.Write("42", strconv.FormatInt(number, 10), `["`, event, `",`, string(body), "]") // If it fails the reader ends.
}

// send makes an attempt to send a draft.
func (c *connection) send(p *pending) {
	body := p.body()
	body["conversation_id"] = p.conversation
	c.emit(p.line(), "send-message", body, acknowledged, func(l *history.Line) { c.settle(p, l) })
}

// acknowledged reads {"message": row}.
func acknowledged(l *history.Line, answer json.RawMessage) {
	if err := decodeMessage(answer, l); err != nil {
		l.Phase, l.Code = history.Unknown, "cannot be read"
	}
}

// settle does what follows from the outcome of an attempt: a draft stays until it is known whether it is a message.
func (d *device) settle(p *pending, l *history.Line) {
	if l.Phase == history.OK && len(l.Rows) == 1 {
		d.person.sent(p.draft, l.Rows[0])
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p.under, p.next = false, time.Now().Add(retryAfter)
	again := p.clientMessageID != "" && (l.Phase == history.Unknown || l.Phase == history.Fail && (!l.Refused() || l.Code == "overloaded" || l.Code == "storage_full"))
	if !again {
		d.drafts = slices.DeleteFunc(d.drafts, func(x *pending) bool { return x == p })
	}
}

// read handles packets until the connection ends, and records what is then unknown.
func (c *connection) read() {
	defer close(c.ended)
	for {
		p, err := c.conn.Read()
		if err == nil {
			err = c.packet(p)
		}
		if err != nil {
			break
		}
	}
	c.conn.Close()
	c.mu.Lock()
	waiting := c.waiting
	c.waiting, c.is, c.live = nil, nil, false
	c.mu.Unlock()
	for _, a := range waiting {
		out := history.Line{Phase: history.Unknown, Kind: a.line.Kind, Op: a.line.Op}
		c.run.rec.Add(out)
		if a.after != nil {
			a.after(&out)
		}
	}
	c.run.rec.Add(history.Line{Phase: history.Mark, Kind: history.Disconnected, Session: c.id})
}

var errEnded = errors.New("the server ended the connection")

// packet handles one Engine.IO packet.
func (c *connection) packet(p []byte) error {
	switch {
	case len(p) == 1 && p[0] == '2':
		return c.conn.Write("3")
	case len(p) == 1 && p[0] == '1', len(p) >= 2 && (string(p[:2]) == "44" || string(p[:2]) == "41"):
		return errEnded
	case len(p) > 2 && string(p[:2]) == "42":
		name, e, err := readEvent(p)
		if err != nil {
			c.run.fail(fmt.Errorf("an event cannot be read: %w", err))
			return err
		}
		return c.event(name, &e)
	case len(p) > 2 && string(p[:2]) == "43":
		number, answer, err := readAck(p)
		if err != nil {
			c.run.fail(fmt.Errorf("an acknowledgement cannot be read: %w", err))
			return err
		}
		c.answer(number, answer)
	}
	return nil // The handshake and noops.
}

// event records an event and does what a client does with it.
func (c *connection) event(name string, e *wireEvent) error {
	if name == "authenticated" {
		c.mu.Lock()
		a := c.waiting[connecting]
		delete(c.waiting, connecting)
		c.live, c.cursor = true, e.Cursor
		c.mu.Unlock()
		if a == nil {
			return fmt.Errorf("%w: it says authenticated twice", errEnded)
		}
		c.run.rec.Add(history.Line{Phase: history.OK, Kind: history.Connect, Op: a.line.Op, Session: c.id, Cursor: e.Cursor})
		return nil
	}
	l := history.Line{Phase: history.Event, Kind: name, Session: c.id}
	e.into(&l)
	c.run.rec.Add(l)
	c.run.heard.Add(1)
	for _, row := range l.Rows {
		c.person.saw(row)
	}
	switch name {
	case "cursor":
		c.mu.Lock()
		c.cursor = e.Cursor
		if c.caughtUp.IsZero() {
			c.caughtUp = time.Now()
		}
		c.mu.Unlock()
	case "sync_required":
		c.mu.Lock()
		c.syncing = true
		c.mu.Unlock()
		c.sync(e.Cursor)
	}
	return nil
}

// sync asks for a page of what was missed, and for the next one when it has come.
func (c *connection) sync(cursor string) {
	c.emit(history.Line{Kind: history.Sync, Cursor: cursor}, "sync", map[string]any{"cursor": cursor, "limit": syncLimit},
		func(l *history.Line, answer json.RawMessage) {
			var page wirePage
			if err := json.Unmarshal(answer, &page); err != nil {
				l.Phase, l.Code = history.Unknown, "cannot be read"
				return
			}
			page.into(l)
			c.mu.Lock()
			c.cursor, c.syncing = page.Cursor, page.HasMore
			c.mu.Unlock()
		},
		func(l *history.Line) {
			switch {
			case l.Phase != history.OK:
				c.conn.Close() // It comes back with its cursor, and asks again.
			case l.More:
				c.sync(l.Cursor)
			}
		})
}

// answer records the outcome of an operation.
func (c *connection) answer(number int64, answer json.RawMessage) {
	c.mu.Lock()
	a := c.waiting[number]
	delete(c.waiting, number)
	c.mu.Unlock()
	if a == nil {
		c.run.fail(fmt.Errorf("the acknowledgement %d came twice, or for nothing", number))
		return
	}
	var outcome struct {
		OK    bool
		Error struct{ Code string }
	}
	out := history.Line{Phase: history.OK, Kind: a.line.Kind, Op: a.line.Op}
	if err := json.Unmarshal(answer, &outcome); err != nil || !outcome.OK {
		out.Phase, out.Code = history.Fail, outcome.Error.Code
	} else if a.done != nil {
		a.done(&out, answer)
	}
	c.run.rec.Add(out)
	if a.after != nil {
		a.after(&out)
	}
}

// settled reports whether the device has a connection and everything that it knows of.
func (d *device) settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.is != nil && d.is.live && !d.is.syncing && len(d.is.waiting) == 0 && len(d.drafts) == 0
}
