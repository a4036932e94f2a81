package engineio

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// exchange writes a request as it stands, after which the stream stays open, and returns the answers up to the end of the stream, which it
// wants within the deadline of the connection.
func (ts *testServer) exchange(request string, more func(net.Conn)) []string {
	ts.t.Helper()
	conn, err := net.Dial("tcp", ts.http.Listener.Addr().String())
	if err != nil {
		ts.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		ts.t.Fatal(err)
	}
	if more != nil {
		go more(conn)
	}
	var answers []string
	for r := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				ts.t.Errorf("%.60q: the connection stays open after %q", request, answers)
			}
			return answers
		}
		body, _ := io.ReadAll(res.Body) // What is cut is compared all the same.
		answers = append(answers, res.Status+" "+string(body))
	}
}

// Whatever an HTTP request is, it is answered, and the connection closed if there is a body that nobody wants, however much of it comes and
// when. The session stays unless the request was one of its own and broken.
func TestMalformedHTTP(t *testing.T) {
	const (
		chunked     = "Transfer-Encoding: chunked\r\n\r\n"
		badBody     = `400 Bad Request {"code":3,"message":"Bad request"}`
		unknown     = `400 Bad Request {"code":1,"message":"Session ID unknown"}`
		noTransport = `400 Bad Request {"code":0,"message":"Transport unknown"}`
		noHandshake = `400 Bad Request {"code":2,"message":"Bad handshake method"}`
		tooBig      = `413 Request Entity Too Large {"code":3,"message":"Payload too big"}`
	)
	endless := func(conn net.Conn) {
		chunk := []byte("400\r\n" + strings.Repeat("6", 0x400) + "\r\n")
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}
	trickle := func(conn net.Conn) {
		for range time.Tick(5 * time.Millisecond) {
			if _, err := io.WriteString(conn, "1\r\n6\r\n"); err != nil {
				return
			}
		}
	}
	abort := func(conn net.Conn) { _ = conn.(*net.TCPConn).CloseWrite() } // It is about the server's end.
	for _, c := range []struct {
		name    string
		request string // its first line has SID for the id of a session
		more    func(net.Conn)
		answer  string
		stays   bool
	}{
		{"no transport", "POST /engine.io/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", nil, noTransport, true},
		{"handshake by POST, endless", "POST /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n" + chunked, endless, noHandshake, true},
		{"handshake by POST, never coming", "POST /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", nil, noHandshake, true},
		{"handshake with a body", "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", nil, badBody, true},
		{"long query", "GET /engine.io/?EIO=4&transport=polling&x=" + strings.Repeat("x", 9<<10) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", nil, badBody, true},
		{"poll with a body, slow", "GET /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\n" + chunked, trickle, badBody, true},
		{"WebSocket with a body", "GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 3\r\n\r\nabc", nil, badBody, true},
		{"POST to nobody, endless", "POST /engine.io/?transport=polling&sid=nobody HTTP/1.1\r\nHost: x\r\n" + chunked, endless, unknown, true},
		{"other method, slow", "PUT /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\n" + chunked, trickle, badBody, true},
		{"binary body, endless", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n" + chunked, endless, badBody, false},
		{"binary body, never coming", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream;x=y\r\nContent-Length: 9\r\n\r\n", nil, badBody, false},
		{"endless body", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\n" + chunked, endless, tooBig, true},
		{"body announced too long", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n4", nil, tooBig, true},
		{"slow body", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\n" + chunked, trickle, badBody, false},
		{"body never coming", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4x", nil, badBody, false},
		{"aborted body", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4x", abort, badBody, false},
		{"chunks that are none", "POST /engine.io/?transport=polling&sid=SID HTTP/1.1\r\nHost: x\r\n" + chunked + "zz\r\n", nil, badBody, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, Options{MaxPayload: 100_000, MessageTimeout: 50 * time.Millisecond}, nil)
			q := ts.polling()
			answers := ts.exchange(strings.Replace(c.request, "SID", ts.session(0).conn.ID(), 1), c.more)
			if len(answers) != 1 || answers[0] != c.answer {
				t.Errorf("answers %q, want %q", answers, c.answer)
			}
			if c.stays {
				ts.want("POST", q, "4still here", 200, "ok")
				return
			}
			eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportError })
			if len(ts.session(0).messages) != 0 {
				t.Errorf("messages %q of a body that did not come whole", ts.session(0).messages)
			}
		})
	}
}

// What follows a request on its connection and is none ends that connection, and nothing else.
func TestPipelinedGarbage(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	answers := ts.exchange("POST /engine.io/?"+q+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4x\x00\x01garbage\r\n\r\n", nil)
	if len(answers) != 2 || answers[0] != "200 OK ok" || !strings.HasPrefix(answers[1], "400") {
		t.Errorf("answers %q, want ok and a refusal", answers)
	}
	ts.want("GET", q, "", 200, "4x")
	// A poll and a POST, in one segment on one connection: the answer to the poll comes first, and needs no POST.
	_ = ts.session(0).conn.Send(textFrame("y")) // The poll finds it.
	answers = ts.exchange("GET /engine.io/?"+q+" HTTP/1.1\r\nHost: x\r\n\r\nPOST /engine.io/?"+q+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n4z", nil)
	if strings.Join(answers, ", ") != "200 OK 4y, 200 OK ok" {
		t.Errorf("answers %q", answers)
	}
	p := ts.websocket()
	p.write("\x00\x01garbage")
	p.wantClose(closeProtocolError)
}

// A client that asks and does not read is cut as one over WebSocket is.
func TestPollWriteTimeout(t *testing.T) {
	ts := serve(t, Options{WriteTimeout: 50 * time.Millisecond, QueueBytesMax: 64 << 20}, nil)
	q := ts.polling()
	s := ts.session(0)
	if err := s.conn.Send(textFrame(strings.Repeat("x", 32<<20))); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", ts.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /engine.io/?"+q+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "close", func() bool { return s.closedFor() == ReasonSlow })
	if n := ts.Stats(); n.SlowCloses != 1 || n.Pollings != 0 {
		t.Errorf("stats %+v", n)
	}
}

// A client that does not ask is cut at the bound.
func TestPollQueueIsBounded(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 64 << 10}, nil)
	ts.polling()
	s := ts.session(0)
	f := textFrame(strings.Repeat("x", 1<<10))
	sent := 0
	for s.conn.Send(f) == nil {
		if sent++; sent > 64 {
			t.Fatalf("%d frames of 1 KiB wait, want at most 64 KiB", sent)
		}
	}
	eventually(t, "close", func() bool { return s.closedFor() == ReasonSlow })
	if n := ts.Stats(); sent < 60 || n.SlowCloses != 1 || n.QueueBytes != 0 {
		t.Errorf("%d frames fit; stats %+v", sent, n)
	}
}

// The times that an http.Server gives a request end no poll: it waits for as long as there is nothing to say.
func TestServerTimeoutsEndNoPoll(t *testing.T) {
	ts := serve(t, Options{}, nil)
	web := httptest.NewUnstartedServer(ts.Server)
	web.Config.ReadTimeout, web.Config.WriteTimeout = 30*time.Millisecond, 30*time.Millisecond
	web.Start()
	ts.http.Close()
	ts.http = web
	q := ts.polling()
	answer := make(chan string)
	go func() {
		_, body, _ := ts.request("GET", q, "")
		answer <- body
	}()
	eventually(t, "pending poll", func() bool { return ts.hasPoll(0) })
	select {
	case got := <-answer:
		t.Errorf("poll: %q before there was anything", got)
	case <-time.After(100 * time.Millisecond):
		_ = ts.session(0).conn.Send(textFrame("x")) // The poll finds it.
		if got := <-answer; got != "4x" {
			t.Errorf("poll: %q, want 4x", got)
		}
	}
	if got := ts.session(0).closedFor(); got != "" {
		t.Errorf("closed for %q", got)
	}
}

// A server whose ResponseWriter can do nothing but write serves polling.
func TestPlainResponseWriter(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	var w plainWriter
	ask := func(method, body string) string {
		t.Helper()
		r, err := http.NewRequest(method, "/engine.io/?"+q, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		w.Reset()
		ts.ServeHTTP(&w, r)
		return w.String()
	}
	if got := ask("POST", "4x"); got != "ok" {
		t.Errorf("POST: %q", got)
	}
	if got := ask("GET", ""); got != "4x" {
		t.Errorf("poll: %q", got)
	}
	if got := ts.session(0).closedFor(); got != "" {
		t.Errorf("closed for %q", got)
	}
}

type plainWriter struct {
	bytes.Buffer
	header http.Header
}

func (w *plainWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (*plainWriter) WriteHeader(int) {}
