package frames

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/engineio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait bounds how long a test waits for anything.
const wait = 20 * time.Second

// maxPayload is Options.MaxPayload of the servers: above all borders of RFC 6455's lengths, and small enough to be sent often.
const maxPayload = 100_000

// Opcodes of RFC 6455 section 5.2, and the bit of a message's last frame.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
	fin            = 0x80
)

// A server echoes messages, and tells on ends why each session ended.
type server struct {
	*httptest.Server
	ends chan string
}

func serve(t *testing.T, opts engineio.Options) *server {
	t.Helper()
	s := &server{ends: make(chan string, 1000)}
	opts.MaxPayload = maxPayload
	engine := engineio.NewServer(opts, func(c *engineio.Conn, _ *http.Request) engineio.Session { return echo{c, s.ends} })
	s.Server = httptest.NewServer(engine)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := engine.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.Close()
	})
	return s
}

// wantEnd waits for the end of a session.
func (s *server) wantEnd(t *testing.T, reason string) {
	t.Helper()
	select {
	case got := <-s.ends:
		if got != reason {
			t.Errorf("the session ended with %q, want %q", got, reason)
		}
	case <-time.After(wait):
		t.Errorf("the session has not ended in %v, want %q", wait, reason)
	}
}

// echo sends back what it gets.
type echo struct {
	conn *engineio.Conn
	ends chan string
}

func (e echo) Message(data []byte, binary bool) {
	f := engineio.BinaryFrame(data)
	if !binary {
		f = engineio.TextFrame(len(data), func(b []byte) []byte { return append(b, data...) })
	}
	_ = e.conn.Send(&f) // A client that has gone is what some tests are about.
}

func (e echo) Close(reason string) { e.ends <- reason }

// A peer writes and reads frames on a socket.
type peer struct {
	t    *testing.T
	conn *net.TCPConn
	in   *bufio.Reader
}

// dial opens a WebSocket with the lines of header besides those of the handshake, and returns the lines of the answer.
func (s *server) dial(t *testing.T, header ...string) (*peer, string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	p.write("GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(append(header, ""), "\r\n") + "\r\n")
	var answer strings.Builder
	for !strings.HasSuffix(answer.String(), "\r\n\r\n") {
		line, err := p.in.ReadString('\n')
		if err != nil {
			t.Fatalf("answer to the handshake: %q, %v", answer.String(), err)
		}
		answer.WriteString(line)
	}
	// The accept key of this key stands in RFC 6455 section 1.3.
	if a := answer.String(); !strings.HasPrefix(a, "HTTP/1.1 101 ") || !strings.Contains(a, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") {
		t.Fatalf("answer to the handshake: %q", a)
	}
	if op, data := p.read(); op != fin|opText || !strings.HasPrefix(data, "0{") {
		t.Fatalf("frame %x %q, want the open packet", op, data)
	}
	return p, answer.String()
}

func (p *peer) write(data string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, data); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// read returns the first byte and the payload of the next frame.
func (p *peer) read() (first byte, payload string) {
	p.t.Helper()
	first, payload, err := p.next()
	if err != nil {
		p.t.Fatalf("read: %v", err)
	}
	return first, payload
}

func (p *peer) next() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return 0, "", err
	}
	length := uint64(head[1]) // A mask, which a server may not use, makes it too large.
	switch length {
	case 126:
		var n [2]byte
		_, err = io.ReadFull(p.in, n[:])
		length = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		_, err = io.ReadFull(p.in, n[:])
		length = binary.BigEndian.Uint64(n[:])
	}
	if err != nil {
		return 0, "", err
	}
	data := make([]byte, min(length, 2*maxPayload))
	_, err = io.ReadFull(p.in, data)
	return head[0], string(data), err
}

// want reads a frame, which is to be the only one of its message.
func (p *peer) want(op byte, payload string) {
	p.t.Helper()
	if first, got := p.read(); first != fin|op || got != payload {
		p.t.Fatalf("frame %x with %d bytes %.40q, want %x with %d bytes %.40q", first, len(got), got, fin|op, len(payload), payload)
	}
}

// wantClose reads a Close frame with this code, 0 for none, and then the end.
func (p *peer) wantClose(code uint16) {
	p.t.Helper()
	first, payload := p.read()
	var got uint16
	if len(payload) >= 2 {
		got = binary.BigEndian.Uint16([]byte(payload))
	}
	if first != fin|opClose || got != code {
		p.t.Fatalf("frame %x %.40q, want a Close frame with %d", first, payload, code)
	}
	if first, payload, err := p.next(); err != io.EOF {
		p.t.Fatalf("frame %x %.40q, %v after the Close frame, want the end", first, payload, err)
	}
}

// frame returns a frame with the usual mask.
func frame(first byte, payload string) string {
	return masked(first, payload, [4]byte{0x12, 0x9A, 0xFF, 0x03})
}

func masked(first byte, payload string, mask [4]byte) string {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

// fragments returns a message in n frames of about the same length, with between after each but the last.
func fragments(op byte, message string, n int, between string) string {
	var b strings.Builder
	for i := range n {
		first := byte(opContinuation)
		if i == 0 {
			first = op
		}
		part := message[len(message)*i/n : len(message)*(i+1)/n]
		if i == n-1 {
			b.WriteString(frame(fin|first, part))
		} else {
			b.WriteString(frame(first, part) + between)
		}
	}
	return b.String()
}
