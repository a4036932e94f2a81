package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"parley/test/bench"
)

// signInMax bounds the time from dialling to "authenticated".
const signInMax = 30 * time.Second

// tally is what a set of clients has seen.
type tally struct {
	acks       atomic.Int64 // sends that were acknowledged with ok
	refused    atomic.Int64 // sends that were acknowledged with a failure
	deliveries atomic.Int64 // new-message events
	lost       atomic.Int64 // connections that ended without our closing them
	endToEnd   atomic.Pointer[bench.Histogram]
	refusal    atomic.Pointer[string] // the first failure, for people
}

func newTally() *tally {
	t := &tally{}
	t.endToEnd.Store(&bench.Histogram{})
	return t
}

// client is one Socket.IO connection over WebSocket, made for costing little rather than for tolerance: it knows the few
// packets that Parley sends it by their first bytes and parses no JSON. The official clients judge the protocol elsewhere.
//
// One goroutine reads. post may be called by one other.
type client struct {
	tally    *tally
	conn     *bench.Conn
	signedIn chan error // gets one value
	acked    chan struct{}
	ended    chan struct{} // closed when the reader has ended
	closing  atomic.Bool

	posted int // packets sent by post, whose number is the id of the acknowledgement
}

// dial connects to the server at address and signs in; it returns after "authenticated".
// bufferBytes is the size of the read buffer, the largest frame that needs no copy.
func dial(ctx context.Context, address, token string, bufferBytes int, t *tally) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, signInMax)
	defer cancel()
	conn, err := bench.Dial(ctx, address, "/socket.io/?EIO=4&transport=websocket", bufferBytes)
	if err != nil {
		return nil, err
	}
	c := &client{tally: t, conn: conn, signedIn: make(chan error, 1), acked: make(chan struct{}, 1), ended: make(chan struct{})}
	go c.read()
	if err := c.conn.Write(`40{"token":"` + token + `"}`); err != nil {
		c.close()
		return nil, err
	}
	select {
	case err = <-c.signedIn:
	case <-c.ended:
		err = errors.New("the connection ended before sign-in")
	case <-ctx.Done():
		err = fmt.Errorf("sign-in: %w", ctx.Err())
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// close ends the connection and waits for its reader.
func (c *client) close() {
	c.closing.Store(true)
	c.conn.Close()
	<-c.ended
}

// filler makes a message about as long as people's are.
const filler = " the quick brown fox jumps over the lazy dog, and then writes to ninety-nine others about it"

// post sends a message that carries the present time; it does not wait for the acknowledgement.
func (c *client) post(conversation string) error {
	c.posted++
	id := strconv.Itoa(c.posted)
	now := strconv.FormatInt(time.Now().UnixNano(), 10)
	return c.conn.Write("42", id, `["send-message",{"conversation_id":"`, conversation, `","content":"`, now, filler,
		`","client_message_id":"`, now, "-", id, `"}]`)
}

// errEnded says that the server, or the network, ended the connection.
var errEnded = errors.New("the connection ended")

// send posts a message and waits for its acknowledgement.
func (c *client) send(ctx context.Context, conversation string) error {
	if err := c.post(conversation); err != nil {
		return err
	}
	select {
	case <-c.acked:
		return nil
	case <-c.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read handles frames until the connection ends.
func (c *client) read() {
	defer close(c.ended)
	err := c.frames()
	if !c.closing.Load() {
		c.tally.lost.Add(1)
	}
	c.conn.Close()
	select {
	case c.signedIn <- fmt.Errorf("%w: %w", errEnded, err):
	default:
	}
}

func (c *client) frames() error {
	for {
		packet, err := c.conn.Read()
		if err != nil {
			return err
		}
		if err := c.packet(packet); err != nil {
			return err
		}
	}
}

var (
	newMessage    = []byte(`42["new-message",`)
	authenticated = []byte(`42["authenticated",`)
	contentBegins = []byte(`"content":"`)
	okMember      = []byte(`"ok":true`)
)

// packet handles one Engine.IO packet, which begins with its type; 4 is a message, and then a Socket.IO packet follows.
func (c *client) packet(p []byte) error {
	switch {
	case bytes.HasPrefix(p, newMessage):
		c.tally.deliveries.Add(1)
		_, content, found := bytes.Cut(p, contentBegins)
		if digits, _, ended := bytes.Cut(content, []byte(" ")); found && ended {
			if sent, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
				c.tally.endToEnd.Load().Add(time.Duration(time.Now().UnixNano() - sent))
			}
		}
	case bytes.HasPrefix(p, []byte("43")):
		if bytes.Contains(p[:min(len(p), 64)], okMember) {
			c.tally.acks.Add(1)
		} else {
			c.tally.refused.Add(1)
			why := string(p[:min(len(p), 200)])
			c.tally.refusal.CompareAndSwap(nil, &why)
		}
		select {
		case c.acked <- struct{}{}:
		default: // nobody waits for acknowledgements here
		}
	case len(p) == 1 && p[0] == '2':
		return c.conn.Write("3")
	case bytes.HasPrefix(p, authenticated):
		select {
		case c.signedIn <- nil:
		default: // the token of a running session was refreshed
		}
	case bytes.HasPrefix(p, []byte("44")), bytes.HasPrefix(p, []byte("41")), len(p) == 1 && p[0] == '1':
		return fmt.Errorf("the server ended it: %s", p[:min(len(p), 200)])
	}
	return nil // the handshake, and events that are not measured
}
