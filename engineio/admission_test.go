package engineio

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// present counts what the server believes to have admitted.
func (ts *testServer) presentConns() (conns, addresses int) {
	ts.Server.mu.Lock()
	defer ts.Server.mu.Unlock()
	return ts.present, len(ts.addresses)
}

// A connection counts from its handshake to its end, on either transport and across the upgrade.
func TestConnsMax(t *testing.T) {
	ts := serve(t, Options{ConnsMax: 2}, nil)
	q := ts.polling()
	p := ts.websocket()
	refused := func() {
		t.Helper()
		for _, header := range [][]string{nil, upgradeHeader} {
			transport := map[bool]string{true: "polling", false: "websocket"}[header == nil]
			status, body, h := ts.request("GET", "EIO=4&transport="+transport, "", header...)
			if status != 503 || body != `{"code":3,"message":"Too many connections"}` || h.Get("Retry-After") != "5" {
				t.Errorf("%s: %d %q %v, want 503", transport, status, body, h)
			}
		}
	}
	refused()
	u := ts.dial("&sid=" + ts.session(0).conn.ID())
	u.write(text("2probe") + text("5"))
	eventually(t, "upgrade", func() bool { return ts.session(0).conn.Transport() == "websocket" })
	refused()
	ts.want("GET", q, "", 400, `{"code":3,"message":"Bad request"}`) // The session is there, but not for polls.
	p.conn.Close()
	eventually(t, "room", func() bool { n, _ := ts.presentConns(); return n == 1 })
	ts.polling()
	refused()
	if n := ts.Stats().Refused; n != 6 {
		t.Errorf("%d connections were counted as refused, want 6", n)
	}
	// A handshake that fails gives its place back.
	u.conn.Close()
	eventually(t, "room", func() bool { n, _ := ts.presentConns(); return n == 1 })
	ts.request("GET", "EIO=4&transport=websocket", "", "Connection", "Upgrade", "Upgrade", "websocket")
	if n, _ := ts.presentConns(); n != 1 {
		t.Errorf("%d connections after a failed handshake, want 1", n)
	}
}

func TestAddressConnsMax(t *testing.T) {
	ts := serve(t, Options{AddressConnsMax: 2, Address: func(r *http.Request) string { return r.URL.Query().Get("from") }}, nil)
	handshake := func(from string, want int) {
		t.Helper()
		if status, body, h := ts.request("GET", "EIO=4&transport=polling&from="+from, ""); status != want || (h.Get("Retry-After") != "") != (want == 429) {
			t.Errorf("handshake from %q: %d %q, want %d", from, status, body, want)
		}
	}
	for range 3 {
		handshake("", 200) // Not counted.
	}
	handshake("a", 200)
	p := ts.dial("&from=a")
	handshake("a", 429)
	handshake("b", 200)
	p.conn.Close()
	eventually(t, "room for a", func() bool {
		status, _, _ := ts.request("GET", "EIO=4&transport=polling&from=a", "")
		return status == 200
	})
	for _, c := range ts.all() {
		c.abort(ReasonForcedClose)
	}
	if conns, addresses := ts.presentConns(); conns != 0 || addresses != 0 {
		t.Errorf("%d connections of %d addresses are counted at the end", conns, addresses)
	}
}

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":               "192.0.2.7",
		"[::ffff:192.0.2.7]:1234":      "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1234":  "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:1":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1234":          "fe80::/64",
		"@a socket of the file system": "@a socket of the file system",
		"":                             "",
	} {
		if got := addressOf(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("addressOf(%q) = %q, want %q", remote, got, want)
		}
	}
}

// A session that nobody comes back for goes soon, one that is polled, posted to or upgraded once stays.
func TestFirstPollTimeout(t *testing.T) {
	ts := serve(t, Options{FirstPollTimeout: 40 * time.Millisecond, PingTimeout: 250 * time.Millisecond}, nil)
	posted := ts.polling()
	ts.want("POST", posted, "4x", 200, "ok")
	ts.polling()
	probed := ts.polling()
	ts.dial(probed[len("EIO=4&transport=polling"):])
	abandoned := ts.session(1)
	eventually(t, "close", func() bool { return abandoned.closedFor() == ReasonTimeout })
	for _, n := range []int{0, 2} {
		if got := ts.session(n).closedFor(); got != "" {
			t.Errorf("session %d closed for %q", n, got)
		}
	}
	if n := ts.Stats(); n.Unpolled != 1 || n.Pollings != 2 {
		t.Errorf("stats %+v", n)
	}
}

// A polling session that the server closes is there for a while to say so, however short the server's ticks are, and then gone.
func TestClosedPollingSessionWaits(t *testing.T) {
	ts := serve(t, Options{PingTimeout: 10 * time.Millisecond, FirstPollTimeout: time.Second}, nil)
	ts.polling()
	c := ts.session(0).conn
	begun := time.Now()
	c.Close()
	eventually(t, "end", func() bool { n, _ := ts.presentConns(); return n == 0 })
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("gone after %v, want a second", took)
	}
}

// A connection that is admitted as the server shuts down is closed by it, and not waited for.
func TestShutdownMissesNobody(t *testing.T) {
	begun, leave := make(chan struct{}), make(chan struct{})
	ts := &testServer{t: t}
	ts.Server = NewServer(Options{}, func(c *Conn, _ *http.Request) Session {
		close(begun)
		<-leave
		return &recorder{conn: c}
	})
	ts.serveHTTP()
	status := make(chan int)
	go func() {
		code, _, _ := ts.request("GET", "EIO=4&transport=polling", "")
		status <- code
	}()
	<-begun
	ts.Server.mu.Lock()
	ts.closing = true // As Shutdown does, before it looks for connections.
	ts.Server.mu.Unlock()
	close(leave)
	if got := <-status; got != 200 {
		t.Errorf("handshake: %d", got)
	}
	for _, c := range ts.all() {
		c.mu.Lock()
		if c.state != stateClosing || c.reason != ReasonShutdown {
			t.Errorf("state %d, reason %q, want it closing for the shutdown", c.state, c.reason)
		}
		c.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
