package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley/test/bench"
)

const (
	// enterMax bounds the time from dialling to having joined.
	enterMax = 30 * time.Second
	// enterAtOnce is how many clients connect at the same time.
	enterAtOnce = 64
	// settleMax bounds the wait for deliveries that are still under way when nothing more is published.
	settleMax = 20 * time.Second
	// receiveBytes is the receive buffer of a client that will stop reading: small, so that what it does not read soon waits at the server.
	receiveBytes = 4 << 10
)

// The read buffer of a client that gets many messages, and of one that gets few.
const (
	busyBuffer = 16 << 10
	idleBuffer = 1 << 10
)

// A message's text begins with its number in its room and the time when it was published, both of fixed width.
const (
	numberDigits = 10
	timeDigits   = 19
	headBytes    = numberDigits + 1 + timeDigits + 1
)

// appendText appends the text of a message: size bytes that need no escaping in JSON.
func appendText(b []byte, number uint64, now time.Time, size int) []byte {
	b = appendDigits(b, number, numberDigits)
	b = append(b, ' ')
	b = appendDigits(b, uint64(now.UnixNano()), timeDigits)
	b = append(b, ' ')
	for i := range size - headBytes {
		b = append(b, "the quick brown fox jumps over the lazy dog "[i%44])
	}
	return b
}

func appendDigits(b []byte, n uint64, width int) []byte {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], n, 10)
	for range width - len(text) {
		b = append(b, '0')
	}
	return append(b, text...)
}

// parseText reads the head of a message.
func parseText(text []byte) (number uint64, sent int64, ok bool) {
	if len(text) < headBytes || text[numberDigits] != ' ' || text[headBytes-1] != ' ' {
		return 0, 0, false
	}
	for _, digit := range text[:numberDigits] {
		number = number*10 + uint64(digit-'0')
	}
	for _, digit := range text[numberDigits+1 : headBytes-1] {
		sent = sent*10 + int64(digit-'0')
	}
	return number, sent, true
}

// tally is what all clients of a crowd have seen.
type tally struct {
	deliveries atomic.Int64
	lost       atomic.Int64 // connections that ended without our closing them
	timing     atomic.Pointer[bench.Histogram]
	failure    atomic.Pointer[error] // the first

	wakeAt atomic.Int64  // the number of deliveries that the publisher waits for
	wake   chan struct{} // of capacity one
}

func (t *tally) fail(err error) { t.failure.CompareAndSwap(nil, &err) }

// err is what has gone wrong: a message lost, doubled or out of order, a refusal, or a lost connection.
func (t *tally) err() error {
	if err := t.failure.Load(); err != nil {
		return *err
	}
	if lost := t.lost.Load(); lost > 0 {
		return fmt.Errorf("%d connections were lost", lost)
	}
	return nil
}

// delivered counts one message.
func (t *tally) delivered(sent int64) {
	if h := t.timing.Load(); h != nil {
		h.Add(time.Duration(time.Now().UnixNano() - sent))
	}
	if t.deliveries.Add(1) == t.wakeAt.Load() {
		select {
		case t.wake <- struct{}{}:
		default: // It is awake.
		}
	}
}

// client is one connection, which expects the messages of one room, numbered from 0.
type client struct {
	*bench.Conn
	tally   *tally
	wire    wire
	room    int
	next    uint64
	closing atomic.Bool
	ended   chan struct{} // closed when the reader has ended
}

func (c *client) deliver(text []byte) {
	number, sent, ok := parseText(text)
	if !ok || number != c.next {
		c.tally.fail(fmt.Errorf("a client in room %d got %.40q, want number %d: a message was lost, came twice or out of order", c.room, text, c.next))
	}
	c.next = number + 1
	c.tally.delivered(sent)
}

// read handles what comes until the connection ends.
func (c *client) read() {
	defer close(c.ended)
	deliver := c.deliver
	for {
		packet, err := c.Read()
		if err == nil {
			var answer string
			if answer, err = c.wire.take(packet, deliver); answer != "" && err == nil {
				err = c.Write(answer)
			}
		}
		if err != nil {
			if !c.closing.Load() {
				c.tally.lost.Add(1)
				if errors.Is(err, errRefused) {
					c.tally.fail(err)
				}
			}
			c.Close()
			return
		}
	}
}

// crowd is a set of clients in rooms, and who publishes in these.
type crowd struct {
	*tally
	server  *server
	clients []*client
	numbers []uint64  // of the next message in each room
	sizes   []int     // the reading clients in each room
	first   []*client // of these, in each room
	bytes   int       // of a message

	published int64 // deliveries that are owed
	line      []byte
}

// place is where a client goes: its number as a user, the rooms that it joins, and the one of these whose messages it expects.
type place struct {
	user  int
	rooms string
	room  int
}

// enter connects clients, some at a time, all of which read.
func enter(ctx context.Context, s *server, places []place, rooms, messageBytes, bufferBytes int) (*crowd, error) {
	c := &crowd{tally: &tally{wake: make(chan struct{}, 1)}, server: s, numbers: make([]uint64, rooms), sizes: make([]int, rooms),
		first: make([]*client, rooms), bytes: messageBytes}
	err := c.enter(ctx, places, bufferBytes)
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// enter adds clients to the crowd. bufferBytes 0 makes them clients that never read once they have joined, and that are owed nothing.
func (c *crowd) enter(ctx context.Context, places []place, bufferBytes int) error {
	before := len(c.clients)
	c.clients = append(c.clients, make([]*client, len(places))...)
	errs := make([]error, len(places))
	gate := make(chan struct{}, enterAtOnce)
	var wg sync.WaitGroup
	for i, p := range places {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if errs[i] = context.Cause(ctx); errs[i] == nil {
				c.clients[before+i], errs[i] = c.dial(ctx, p, bufferBytes)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("client %d of %d: %w", i+1, len(places), err)
		}
		if bufferBytes > 0 {
			room := places[i].room
			if c.sizes[room]++; c.first[room] == nil {
				c.first[room] = c.clients[before+i]
			}
		}
	}
	return nil
}

func (c *crowd) dial(ctx context.Context, p place, bufferBytes int) (*client, error) {
	w := c.server.wire
	conn, err := bench.Dial(ctx, c.server.address, w.target(), max(bufferBytes, idleBuffer))
	if err != nil {
		return nil, err
	}
	client := &client{Conn: conn, tally: c.tally, wire: w, room: p.room, next: c.numbers[p.room], ended: make(chan struct{})}
	if err = conn.TCP.SetDeadline(time.Now().Add(enterMax)); err == nil {
		if err = w.enter(conn, p.user, p.rooms); err == nil {
			err = conn.TCP.SetDeadline(time.Time{})
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	if bufferBytes > 0 {
		go client.read()
		return client, nil
	}
	close(client.ended)
	return client, conn.TCP.SetReadBuffer(receiveBytes)
}

func (c *crowd) close() { c.leave(len(c.clients)) }

// leave ends the connections of the clients that entered last.
func (c *crowd) leave(count int) {
	last := c.clients[len(c.clients)-count:]
	for _, client := range last {
		if client != nil {
			client.closing.Store(true)
			client.Close()
		}
	}
	for _, client := range last {
		if client != nil {
			<-client.ended
			c.sizes[client.room]--
		}
	}
	c.clients = c.clients[:len(c.clients)-count]
}

// publish has the server send one message to a room. What it writes may wait for flush.
func (c *crowd) publish(room int) error {
	c.line = appendText(c.line[:0], c.numbers[room], time.Now(), c.bytes)
	c.numbers[room]++
	c.published += int64(c.sizes[room])
	return c.server.publish(c, room, c.line)
}

// outstanding is how many deliveries are under way.
func (c *crowd) outstanding() int64 { return c.published - c.deliveries.Load() }

// waitUntil waits until at most that many deliveries are under way.
func (c *crowd) waitUntil(ctx context.Context, outstanding int64) error {
	at := c.published - outstanding
	for c.deliveries.Load() < at {
		c.wakeAt.Store(at)
		if c.deliveries.Load() >= at {
			return nil
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return fmt.Errorf("%d deliveries are missing: %w", c.outstanding(), context.Cause(ctx))
		}
	}
	return nil
}

// settle waits for all that is owed, and reports what went wrong.
func (c *crowd) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	waited := c.waitUntil(ctx, 0)
	if err := c.err(); err != nil {
		return err
	}
	if waited != nil {
		return waited
	}
	if extra := -c.outstanding(); extra > 0 {
		return fmt.Errorf("%d deliveries too many", extra)
	}
	return nil
}
