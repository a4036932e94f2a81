package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// signInMax bounds the time from dialling to "authenticated".
const signInMax = 30 * time.Second

// frameMax bounds what a client takes for one frame; the server sends nothing larger unless asked.
const frameMax = 1 << 20

// tally is what a set of clients has seen.
type tally struct {
	acks       atomic.Int64 // sends that were acknowledged with ok
	refused    atomic.Int64 // sends that were acknowledged with a failure
	deliveries atomic.Int64 // new-message events
	lost       atomic.Int64 // connections that ended without our closing them
	endToEnd   atomic.Pointer[histogram]
	refusal    atomic.Pointer[string] // the first failure, for people
}

func newTally() *tally {
	t := &tally{}
	t.endToEnd.Store(&histogram{})
	return t
}

// client is one Socket.IO connection over WebSocket, made for costing little rather than for tolerance: it knows the few
// packets that Parley sends it by their first bytes and parses no JSON. The official clients judge the protocol elsewhere.
//
// One goroutine reads. post may be called by one other.
type client struct {
	tally    *tally
	conn     net.Conn
	in       *bufio.Reader
	signedIn chan error // gets one value
	acked    chan struct{}
	ended    chan struct{} // closed when the reader has ended
	closing  atomic.Bool

	posted int // packets sent by post, whose number is the id of the acknowledgement

	mu  sync.Mutex
	out []byte // the frame being written
}

// dial connects to the server at address and signs in; it returns after "authenticated".
// bufferBytes is the size of the read buffer, the largest frame that needs no copy.
func dial(ctx context.Context, address, token string, bufferBytes int, t *tally) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, signInMax)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{tally: t, conn: conn, in: bufio.NewReaderSize(conn, bufferBytes),
		signedIn: make(chan error, 1), acked: make(chan struct{}, 1), ended: make(chan struct{})}
	if err := c.upgrade(address); err != nil {
		conn.Close()
		return nil, err
	}
	go c.read()
	if err := c.write(`40{"token":"` + token + `"}`); err != nil {
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

// upgrade does the opening handshake of RFC 6455, section 4.1, straight to Engine.IO's WebSocket transport.
func (c *client) upgrade(address string) error {
	c.conn.SetDeadline(time.Now().Add(signInMax)) // a connection that takes no deadline fails at its next use
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	_, err := fmt.Fprintf(c.conn, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", address, key)
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	response.Body.Close() // a response to an upgrade has none
	if response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade: %s", response.Status)
	}
	return c.conn.SetDeadline(time.Time{})
}

// close ends the connection and waits for its reader.
func (c *client) close() {
	c.closing.Store(true)
	c.conn.Close() // what the peer had not sent yet is of no interest
	<-c.ended
}

// write sends one text frame. Client frames are masked (RFC 6455, section 5.3); a key of zeros leaves the text as it is.
func (c *client) write(parts ...string) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := append(c.out[:0], 0x81)
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		return fmt.Errorf("a frame of %d bytes is beyond this client", n)
	}
	b = append(b, 0, 0, 0, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	c.out = b
	_, err := c.conn.Write(b)
	return err
}

// filler makes a message about as long as people's are.
const filler = " the quick brown fox jumps over the lazy dog, and then writes to ninety-nine others about it"

// post sends a message that carries the present time; it does not wait for the acknowledgement.
func (c *client) post(conversation string) error {
	c.posted++
	id := strconv.Itoa(c.posted)
	now := strconv.FormatInt(time.Now().UnixNano(), 10)
	return c.write("42", id, `["send-message",{"conversation_id":"`, conversation, `","content":"`, now, filler,
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
	c.conn.Close() // it failed, or is closed already
	select {
	case c.signedIn <- fmt.Errorf("%w: %w", errEnded, err):
	default:
	}
}

func (c *client) frames() error {
	var large []byte
	for {
		head, err := c.in.Peek(2)
		if err != nil {
			return err
		}
		kind, length, skip := head[0], int(head[1]), 2
		switch length {
		case 126:
			if head, err = c.in.Peek(4); err != nil {
				return err
			}
			length, skip = int(binary.BigEndian.Uint16(head[2:])), 4
		case 127:
			if head, err = c.in.Peek(10); err != nil {
				return err
			}
			long := binary.BigEndian.Uint64(head[2:])
			if long > frameMax {
				return fmt.Errorf("a frame of %d bytes", long)
			}
			length, skip = int(long), 10
		}
		if _, err := c.in.Discard(skip); err != nil {
			return err
		}
		var payload []byte
		if length <= c.in.Size() {
			if payload, err = c.in.Peek(length); err != nil {
				return err
			}
		} else {
			large = append(large[:0], make([]byte, length)...)
			payload = large
			for at := 0; at < length; {
				n, err := c.in.Read(payload[at:])
				if err != nil {
					return err
				}
				at += n
			}
		}
		switch kind {
		case 0x81: // a whole text
			if err := c.packet(payload); err != nil {
				return err
			}
		case 0x88:
			return errors.New("close frame")
		case 0x89: // a ping's answer would need its payload; Parley's heartbeat is Engine.IO's
			return errors.New("WebSocket ping")
		default:
			return fmt.Errorf("a frame that begins with %#x", kind)
		}
		if length <= c.in.Size() {
			if _, err := c.in.Discard(length); err != nil {
				return err
			}
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
				c.tally.endToEnd.Load().add(time.Duration(time.Now().UnixNano() - sent))
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
		return c.write("3")
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
