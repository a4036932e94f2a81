package bench

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// openMax bounds the time from dialling to the end of the opening handshake.
	openMax = 30 * time.Second
	// frameBytesMax bounds what is taken for one frame; no server sends anything larger unless asked.
	frameBytesMax = 1 << 20
)

// A Conn is the client's end of a WebSocket, made for costing little rather than for tolerance: it takes whole texts only, as all the
// servers send them. One goroutine may read, and any may write.
type Conn struct {
	TCP *net.TCPConn

	in    *bufio.Reader
	taken int    // bytes of in that the last payload is made of
	large []byte // a payload that in does not hold

	mu  sync.Mutex
	out []byte // the frame being written
}

// Dial connects to a WebSocket server; target is the path and query of the request. bufferBytes is the size of the read buffer, the
// largest frame that needs no copy.
func Dial(ctx context.Context, address, target string, bufferBytes int) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openMax)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Conn{TCP: conn.(*net.TCPConn), in: bufio.NewReaderSize(conn, bufferBytes)}
	if err := c.open(ctx, address, target); err != nil {
		_ = conn.Close() // It is of no use.
		return nil, err
	}
	return c, nil
}

// open does the opening handshake of RFC 6455, section 4.1, until ctx's deadline.
func (c *Conn) open(ctx context.Context, address, target string) error {
	deadline, _ := ctx.Deadline() // Dial gave it one.
	if err := c.TCP.SetDeadline(deadline); err != nil {
		return err
	}
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	_, err := fmt.Fprintf(c.TCP, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", target, address, key)
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	response.Body.Close() // A response to an upgrade has none.
	if response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade: %s", response.Status)
	}
	return c.TCP.SetDeadline(time.Time{})
}

// Write sends one text made of parts. Frames of clients are masked (RFC 6455, section 5.3); a key of zeros leaves the text as it is.
func (c *Conn) Write(parts ...string) error {
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
	_, err := c.TCP.Write(b)
	return err
}

// Read returns the next text, which is valid until the next call. Everything but a whole text is an error.
func (c *Conn) Read() ([]byte, error) {
	if _, err := c.in.Discard(c.taken); err != nil {
		return nil, err
	}
	c.taken = 0
	head, err := c.in.Peek(2)
	if err != nil {
		return nil, err
	}
	kind, length, size := head[0], int(head[1]), 2
	switch length {
	case 126:
		if head, err = c.in.Peek(4); err != nil {
			return nil, err
		}
		length, size = int(binary.BigEndian.Uint16(head[2:])), 4
	case 127:
		if head, err = c.in.Peek(10); err != nil {
			return nil, err
		}
		long := binary.BigEndian.Uint64(head[2:])
		if long > frameBytesMax {
			return nil, fmt.Errorf("a frame of %d bytes", long)
		}
		length, size = int(long), 10
	}
	switch kind {
	case 0x81: // a whole text
	case 0x88:
		return nil, errors.New("close frame")
	default: // A ping's answer would need its payload; the servers have heartbeats of their own.
		return nil, fmt.Errorf("a frame that begins with %#x", kind)
	}
	if size+length <= c.in.Size() {
		whole, err := c.in.Peek(size + length)
		if err != nil {
			return nil, err
		}
		c.taken = size + length
		return whole[size:], nil
	}
	if _, err := c.in.Discard(size); err != nil {
		return nil, err
	}
	if cap(c.large) < length {
		c.large = make([]byte, length)
	}
	_, err = io.ReadFull(c.in, c.large[:length])
	return c.large[:length], err
}

// Buffered is how many bytes have come that Read has not looked at: 0 says that the next Read may wait.
func (c *Conn) Buffered() int { return c.in.Buffered() - c.taken }

// Close ends the connection.
func (c *Conn) Close() { _ = c.TCP.Close() } // What the peer had not sent yet is of no interest.
