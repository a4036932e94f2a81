package engineio

import (
	"context"
	"encoding/base64"
	"net/http"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestPolling(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	ts.want("POST", q, "4a\x1e4grüße\x1ebAAH/\x1e4", 200, "ok")
	ts.want("GET", q, "", 200, "4a\x1e4grüße\x1ebAAH/\x1e4")

	// A poll that waits is answered when there is something.
	answer := make(chan string)
	go func() {
		_, body, _ := ts.request("GET", q, "")
		answer <- body
	}()
	eventually(t, "pending poll", func() bool { return ts.hasPoll(0) })
	ts.want("POST", q, "4later", 200, "ok")
	if got := <-answer; got != "4later" {
		t.Errorf("poll: %q, want 4later", got)
	}

	_, _, h := ts.request("POST", q, "4x")
	if h.Get("Content-Type") != "text/html" || h.Get("Cache-Control") != "no-store" || h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("headers of a POST: %v", h)
	}
	// The client closes: the session hears of it once, and what was to be sent is dropped.
	ts.want("POST", q, "1", 200, "ok")
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportClose })
	ts.want("GET", q, "", 200, "6")
	ts.want("GET", q, "", 400, `{"code":1,"message":"Session ID unknown"}`)
}

func (ts *testServer) hasPoll(n int) bool {
	c := ts.session(n).conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.poll != nil
}

func TestPollingBreach(t *testing.T) {
	cases := []struct {
		name, body string
		header     []string
		status     int
		reason     string
	}{
		{"no packet", "abc", nil, 400, ReasonParseError},
		{"empty body", "", nil, 400, ReasonParseError},
		{"empty packet", "4a\x1e", nil, 400, ReasonParseError},
		{"not base64", "b!", nil, 400, ReasonParseError},
		{"not UTF-8", "4\xff", nil, 400, ReasonParseError},
		{"too many packets", strings.Repeat("6\x1e", 8) + "6", nil, 400, ReasonParseError},
		{"ping of a client", "2", nil, 200, ReasonTransportError},
		{"binary body", "4x", []string{"Content-Type", "application/octet-stream"}, 400, ReasonTransportError},
		{"too big", strings.Repeat("x", 2001), nil, 413, ""},
	}
	ts := serve(t, Options{MaxPayload: 2000, PayloadPacketsMax: 8}, nil)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			q := ts.polling()
			if status, body, _ := ts.request("POST", q, c.body, c.header...); status != c.status {
				t.Errorf("POST: %d %q, want %d", status, body, c.status)
			}
			if c.reason == "" {
				ts.want("POST", q, "4still here", 200, "ok")
				return
			}
			eventually(t, "close", func() bool { return ts.session(i).closedFor() == c.reason })
			ts.want("GET", q, "", 400, `{"code":1,"message":"Session ID unknown"}`)
		})
	}
}

func TestSecondPollEndsSession(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	first := make(chan string)
	go func() {
		_, body, _ := ts.request("GET", q, "")
		first <- body
	}()
	eventually(t, "pending poll", func() bool { return ts.hasPoll(0) })
	ts.want("GET", q, "", 400, `{"code":3,"message":"Bad request"}`)
	if got := <-first; got != "1" {
		t.Errorf("first poll: %q, want a close packet", got)
	}
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportError })
}

func TestAbortedPollEndsSession(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, _ := http.NewRequestWithContext(ctx, "GET", ts.http.URL+"/engine.io/?"+q, nil)
		if res, err := http.DefaultClient.Do(r); err == nil {
			res.Body.Close()
		}
	}()
	eventually(t, "pending poll", func() bool { return ts.hasPoll(0) })
	cancel()
	<-done
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportError })
}

// While a POST is handled, another is a breach; the handler of the first still ends.
func TestSecondPostEndsSession(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	ts := serve(t, Options{}, func(s *recorder) {
		s.onMessage = func([]byte, bool) { close(entered); <-leave }
	})
	q := ts.polling()
	first := make(chan struct{})
	go func() {
		defer close(first)
		ts.request("POST", q, "4x")
	}()
	<-entered
	ts.want("POST", q, "4y", 400, `{"code":3,"message":"Bad request"}`)
	if got := ts.session(0).closedFor(); got != "" {
		t.Errorf("Close(%q) while Message runs", got)
	}
	close(leave)
	<-first
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportError })
}

// The body of a poll stays within MaxPayload, and the rest comes with the next.
func TestPollIsBounded(t *testing.T) {
	ts := serve(t, Options{MaxPayload: 1000}, nil)
	q := ts.polling()
	s := ts.session(0)
	var want strings.Builder
	for i := range 30 {
		data := strings.Repeat(string(rune('a'+i%26)), 100)
		want.WriteString("4" + data)
		if err := s.conn.Send(textFrame(data)); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	for polls := 0; len(got) < want.Len(); polls++ {
		_, body, _ := ts.request("GET", q, "")
		if len(body) > 1000 {
			t.Fatalf("poll of %d bytes", len(body))
		}
		got += strings.ReplaceAll(body, "\x1e", "")
	}
	if got != want.String() {
		t.Error("polls together are not what was sent")
	}
}

func TestServerClosesPolling(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	s := ts.session(0)
	_ = s.conn.Send(textFrame("last"))
	s.conn.Close()
	if err := s.conn.Send(textFrame("too late")); err != ErrClosed {
		t.Errorf("Send after Close: %v, want ErrClosed", err)
	}
	ts.want("POST", q, "4not taken", 200, "ok")
	ts.want("GET", q, "", 200, "4last\x1e1")
	ts.want("GET", q, "", 400, `{"code":1,"message":"Session ID unknown"}`)
	eventually(t, "close", func() bool { return s.closedFor() == ReasonForcedClose })
	if len(s.messages) != 0 {
		t.Errorf("messages %q after Close", s.messages)
	}
}

func TestUpgrade(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	conn := ts.session(0).conn
	ts.want("POST", q, "4one", 200, "ok")

	p := ts.dial("&sid=" + conn.ID())
	p.write(text("2probe"))
	if op, data := p.read(); op != opText || data != "3probe" {
		t.Fatalf("answer to the probe: %x %q", op, data)
	}
	// The poll that the client waits for is answered, first with what there is, then with a noop.
	ts.want("GET", q, "", 200, "4one")
	ts.want("GET", q, "", 200, "6")
	_ = conn.Send(textFrame("two")) // Between the last poll and the upgrade packet.
	p.write(text("5") + text("4three"))
	for _, want := range []string{"4two", "4three"} {
		if _, data := p.read(); data != want {
			t.Errorf("after the upgrade: %q, want %q", data, want)
		}
	}
	if got := conn.Transport(); got != "websocket" {
		t.Errorf("transport %q", got)
	}
	ts.want("GET", q, "", 400, `{"code":3,"message":"Bad request"}`)
	ts.want("POST", q, "4x", 400, `{"code":3,"message":"Bad request"}`)
	ts.dial("&sid=" + conn.ID()).wantClose(0)
	if n := ts.Stats(); n.WebSockets != 1 || n.Pollings != 0 || n.Upgraded != 1 || n.Opened != 1 {
		t.Errorf("stats %+v", n)
	}
}

// A session that ends between the probe and the upgrade packet tells the client so over both transports: an official client that is waiting
// for its last poll to end would not look at what that poll says.
func TestCloseDuringUpgrade(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	conn := ts.session(0).conn
	p := ts.dial("&sid=" + conn.ID())
	p.write(text("2probe"))
	if _, data := p.read(); data != "3probe" {
		t.Fatalf("answer to the probe: %q", data)
	}
	conn.Close()
	ts.want("GET", q, "", 200, "1")
	p.write(text("5"))
	p.wantClose(0)
}

// An upgrade that fails leaves the polling session as it was, and another may follow.
func TestUpgradeFails(t *testing.T) {
	ts := serve(t, Options{UpgradeTimeout: 50 * time.Millisecond}, nil)
	q := ts.polling()
	conn := ts.session(0).conn
	for _, sent := range []string{text("4x"), text("2probe"), text("2probe") + text("4x"), "\x81\x01x", frame(0x80|opClose, ""), ""} {
		p := ts.dial("&sid=" + conn.ID())
		p.write(sent)
		eventually(t, "end of the WebSocket", func() bool { op, _ := p.read(); return op == 0xFF })
		eventually(t, "end of the attempt", func() bool {
			conn.mu.Lock()
			defer conn.mu.Unlock()
			return conn.candidate == nil
		})
	}
	ts.want("POST", q, "4still", 200, "ok")
	ts.want("GET", q, "", 200, "4still")
}

func TestCORS(t *testing.T) {
	open := serve(t, Options{}, nil)
	status, _, h := open.request("OPTIONS", "EIO=4&transport=polling", "", "Origin", "https://a.example", "Access-Control-Request-Headers", "x-a")
	if status != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Headers") != "x-a" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", status, h)
	}

	listed := serve(t, Options{AllowedOrigins: []string{"https://a.example"}}, nil)
	for _, c := range []struct {
		origin string
		status int
	}{{"https://a.example", 200}, {listed.http.URL, 200}, {"https://b.example", 403}, {"null", 403}, {"https://a.example.b.example", 403}} {
		status, body, h := listed.request("GET", "EIO=4&transport=polling", "", "Origin", c.origin)
		if status != c.status || (h.Get("Access-Control-Allow-Origin") == c.origin) != (c.status == 200) {
			t.Errorf("polling from %q: %d %q %v, want %d", c.origin, status, body, h, c.status)
		}
		if c.status == 403 {
			if status, body, _ := listed.request("GET", "EIO=4&transport=websocket", "", append([]string{"Origin", c.origin}, upgradeHeader...)...); status != 403 {
				t.Errorf("WebSocket from %q: %d %q, want 403", c.origin, status, body)
			}
		}
	}
	if status, _, _ := listed.request("GET", "EIO=4&transport=polling", ""); status != 200 {
		t.Errorf("without Origin: %d", status)
	}
}

// A request of another node's session is answered by who knows it; nobody else's, and no WebSocket's.
func TestElsewhere(t *testing.T) {
	asked := 0
	ts := serve(t, Options{SIDPrefix: "b.", Elsewhere: func(w http.ResponseWriter, r *http.Request) bool {
		asked++
		if r.URL.Query().Get("sid") != "a.known" {
			return false
		}
		w.Header().Add("Access-Control-Allow-Origin", "*")
		_, _ = w.Write([]byte("from a")) // The client reads it.
		return true
	}}, nil)
	const unknown = `{"code":1,"message":"Session ID unknown"}`
	for _, c := range []struct {
		method, sid string
		status      int
		answer      string
		asked       int
	}{
		{"GET", "a.known", 200, "from a", 1},
		{"POST", "a.known", 200, "from a", 2},
		{"GET", "a.unknown", 400, unknown, 3},
		{"GET", "b.unknown", 400, unknown, 3},
	} {
		status, body, h := ts.request(c.method, "EIO=4&transport=polling&sid="+c.sid, "")
		if status != c.status || body != c.answer || asked != c.asked || len(h.Values("Access-Control-Allow-Origin")) != 1 {
			t.Errorf("%s %s: %d %q %v, asked %d times, want %d %q and %d", c.method, c.sid, status, body, h, asked, c.status, c.answer, c.asked)
		}
	}
	if status, body, _ := ts.request("GET", "EIO=4&transport=websocket&sid=a.known", "", upgradeHeader...); status != 400 || body != unknown || asked != 3 {
		t.Errorf("WebSocket: %d %q, asked %d times", status, body, asked)
	}
	ts.want("POST", ts.polling(), "4x", 200, "ok")
	if asked != 3 {
		t.Errorf("asked about a session that is here")
	}
}

// FuzzPayload posts arbitrary bodies to a session, which hears exactly the messages before the first packet that is none or ends it; memory
// stays in bounds of the body.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"4a\x1e4b", "bAAH/", "3", "1", "4\xff", "\x1e\x1e", "2probe", "b", "6\x1e5\x1e4x", "b=\x1e4x", "bAA==\x1e4y\x1e7"} {
		f.Add([]byte(seed))
	}
	const packetsMax = 16
	// Without goroutines of its own, which would make the fuzzer believe that inputs differ.
	srv := &Server{opts: Options{PayloadPacketsMax: packetsMax}.withDefaults(), shards: []*shard{newShard()}}
	srv.shards[0].wheel.tick = time.Second
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &recorder{onMessage: func([]byte, bool) {}}
		c := &Conn{srv: srv, shard: srv.shards[0], state: stateOpen, session: s}
		s.conn = c
		srv.conns.Add(1)
		before := allocated()
		ok := c.receivePayload(body)
		if n := allocated() - before; n > uint64(8*len(body)+64<<10) {
			t.Errorf("%d bytes were allocated for a body of %d", n, len(body))
		}
		open := c.isOpen()
		c.abort(ReasonForcedClose)
		srv.conns.Wait()
		want, whole := payloadMessages(body, packetsMax)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !slices.Equal(s.messages, want) || ok != whole || open != whole {
			t.Errorf("of %q: heard %q, %v, open %v, want %q, %v", body, s.messages, ok, open, want, whole)
		}
	})
}

// payloadMessages is the oracle of FuzzPayload: the messages of a body, and whether it has nothing that ends its connection.
func payloadMessages(body []byte, packetsMax int) (messages []string, whole bool) {
	packets := strings.Split(string(body), "\x1e")
	if len(packets) > packetsMax || !utf8.Valid(body) {
		return nil, false
	}
	for _, p := range packets {
		switch {
		case strings.HasPrefix(p, "4"):
			messages = append(messages, p[1:])
		case strings.HasPrefix(p, "b"):
			encoding := base64.StdEncoding
			if len(p[1:])%4 != 0 {
				encoding = base64.RawStdEncoding
			}
			data, err := encoding.DecodeString(p[1:])
			if err != nil {
				return messages, false
			}
			messages = append(messages, string(data))
		case p == "" || !strings.Contains("356", p[:1]):
			return messages, false
		}
	}
	return messages, true
}

// allocated returns the bytes that this process has allocated, about.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
