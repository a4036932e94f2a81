package engineio

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A recorder is a session that echoes, and remembers.
type recorder struct {
	conn      *Conn
	onMessage func(data []byte, binary bool) // in place of the echo

	mu       sync.Mutex
	messages []string
	reasons  []string
}

func (s *recorder) Message(data []byte, binary bool) {
	s.mu.Lock()
	s.messages = append(s.messages, string(data))
	s.mu.Unlock()
	if s.onMessage != nil {
		s.onMessage(data, binary)
		return
	}
	f := textFrame(string(data))
	if binary {
		b := BinaryFrame(data)
		f = &b
	}
	_ = s.conn.Send(f) // It may have been closed by the test.
}

func (s *recorder) Close(reason string) {
	s.mu.Lock()
	s.reasons = append(s.reasons, reason)
	s.mu.Unlock()
}

func (s *recorder) closedFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.reasons, ", ")
}

func textFrame(s string) *Frame {
	f := TextFrame(len(s), func(b []byte) []byte { return append(b, s...) })
	return &f
}

// A testServer serves recorders on loopback.
type testServer struct {
	*Server
	t    *testing.T
	http *httptest.Server

	mu       sync.Mutex
	sessions []*recorder
}

func serve(t *testing.T, opts Options, prepare func(*recorder)) *testServer {
	t.Helper()
	ts := &testServer{t: t}
	ts.Server = NewServer(opts, func(c *Conn, _ *http.Request) Session {
		s := &recorder{conn: c}
		if prepare != nil {
			prepare(s)
		}
		ts.mu.Lock()
		ts.sessions = append(ts.sessions, s)
		ts.mu.Unlock()
		return s
	})
	ts.serveHTTP()
	return ts
}

func (ts *testServer) serveHTTP() {
	ts.http = httptest.NewServer(ts.Server)
	ts.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ts.http.CloseClientConnections()
		_ = ts.Shutdown(ctx) // Clients that tests left open are cut at the end of ctx, which is no failure of theirs.
		ts.http.Close()
		http.DefaultClient.CloseIdleConnections()
	})
}

// session returns the nth session, once it exists.
func (ts *testServer) session(n int) *recorder {
	ts.t.Helper()
	var s *recorder
	eventually(ts.t, "session", func() bool {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if n < len(ts.sessions) {
			s = ts.sessions[n]
		}
		return s != nil
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

// request makes an HTTP request to the path and query, and returns the status and the body.
func (ts *testServer) request(method, query, body string, header ...string) (int, string, http.Header) {
	ts.t.Helper()
	r, err := http.NewRequest(method, ts.http.URL+"/engine.io/?"+query, strings.NewReader(body))
	if err != nil {
		ts.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		ts.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		ts.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// polling opens a session and returns the query of its polls.
func (ts *testServer) polling() (query string) {
	ts.t.Helper()
	status, body, _ := ts.request("GET", "EIO=4&transport=polling", "")
	var open struct{ SID string }
	if status != 200 || body[0] != '0' || json.Unmarshal([]byte(body[1:]), &open) != nil {
		ts.t.Fatalf("handshake: %d %q", status, body)
	}
	return "EIO=4&transport=polling&sid=" + open.SID
}

func (ts *testServer) want(method, query, body string, status int, answer string) {
	ts.t.Helper()
	if s, b, _ := ts.request(method, query, body); s != status || b != answer {
		ts.t.Errorf("%s %q: %d %.80q, want %d %.80q", method, body, s, b, status, answer)
	}
}

// A peer is a WebSocket client that can break every rule.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// dial opens a WebSocket with this query; it has read nothing beyond the HTTP response.
func (ts *testServer) dial(query string) *peer {
	ts.t.Helper()
	conn, err := net.Dial("tcp", ts.http.Listener.Addr().String())
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { conn.Close() })
	p := &peer{ts.t, conn, bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	p.write("GET /engine.io/?EIO=4&transport=websocket" + query + " HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	res, err := http.ReadResponse(p.r, nil)
	if err != nil {
		ts.t.Fatal(err)
	}
	// The example of RFC 6455 section 1.3.
	if got := res.Header.Get("Sec-Websocket-Accept"); res.StatusCode != 101 || got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		ts.t.Fatalf("upgrade: %d, accept %q", res.StatusCode, got)
	}
	return p
}

// websocket opens a session over WebSocket and reads the handshake.
func (ts *testServer) websocket() *peer {
	ts.t.Helper()
	p := ts.dial("")
	if op, data := p.read(); op != opText || !strings.HasPrefix(data, `0{"sid":"`) {
		ts.t.Fatalf("first frame: %x %q", op, data)
	}
	return p
}

func (p *peer) write(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next frame, or opcode 0xFF at the end of the stream.
func (p *peer) read() (opcode byte, payload string) {
	p.t.Helper()
	var h [2]byte
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		return 0xFF, ""
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var b [2]byte
		_, _ = io.ReadFull(p.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, _ = io.ReadFull(p.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(p.r, data); err != nil {
		return 0xFF, ""
	}
	return h[0] & 0x0F, string(data)
}

// wantClose reads up to a close frame with this code, 0 for none, and the end of the stream.
func (p *peer) wantClose(code uint16) {
	p.t.Helper()
	for {
		op, data := p.read()
		switch op {
		case opClose:
			got := uint16(0)
			if len(data) >= 2 {
				got = binary.BigEndian.Uint16([]byte(data))
			}
			if got != code {
				p.t.Errorf("close code %d %q, want %d", got, data[min(2, len(data)):], code)
			}
			if op, _ := p.read(); op != 0xFF {
				p.t.Errorf("frame %x after the close frame", op)
			}
			return
		case 0xFF:
			p.t.Errorf("stream ended without a close frame, want code %d", code)
			return
		}
	}
}

// frame encodes a frame of a client; b0 is its first byte.
func frame(b0 byte, payload string) string {
	b := []byte{b0}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

func text(payload string) string { return frame(0x80|opText, payload) }

func ExampleServer() {
	s := NewServer(Options{}, func(c *Conn, _ *http.Request) Session { return &recorder{conn: c} })
	mux := http.NewServeMux()
	mux.Handle("/engine.io/", s)
	fmt.Println(s.Shutdown(context.Background()))
	// Output: <nil>
}
