package engineio

import (
	"testing"
	"time"
)

func (ts *testServer) wantSent(c *Conn, sent, confirmed uint64) {
	ts.t.Helper()
	if s, n := c.Sent(); s != sent || n != confirmed {
		ts.t.Errorf("Sent() = %d, %d, want %d, %d", s, n, sent, confirmed)
	}
}

// What was queued before a ping is confirmed by its pong, and by nothing else, over polling, over WebSocket, and across the upgrade.
func TestSentIsConfirmedByPong(t *testing.T) {
	ts := serve(t, Options{}, nil)
	q := ts.polling()
	c := ts.session(0).conn
	send := func(data string) {
		t.Helper()
		if err := c.Send(textFrame(data)); err != nil {
			t.Fatal(err)
		}
	}
	ts.wantSent(c, 0, 0)
	send("a")
	ts.want("POST", q, "3", 200, "ok") // No ping waits for it.
	ts.wantSent(c, 1, 0)
	c.Ping()
	c.Ping() // The first one waits for its pong.
	send("b")
	ts.want("GET", q, "", 200, "4a\x1e2\x1e4b")
	ts.wantSent(c, 2, 0)
	ts.want("POST", q, "3", 200, "ok")
	ts.wantSent(c, 2, 1)

	// The ping leaves by the poll, the pong comes over the WebSocket.
	p := ts.dial("&sid=" + c.ID())
	p.write(text("2probe"))
	p.read()
	c.Ping()
	send("c")
	ts.want("GET", q, "", 200, "2\x1e4c")
	send("d")
	p.write(text("5"))
	if _, data := p.read(); data != "4d" {
		t.Errorf("%q after the upgrade, want 4d", data)
	}
	ts.wantSent(c, 4, 1)
	p.write(text("3"))
	eventually(t, "confirmation", func() bool { _, n := c.Sent(); return n == 2 })
	c.Ping()
	if _, data := p.read(); data != "2" {
		t.Errorf("%q, want a ping", data)
	}
	p.write(text("3"))
	eventually(t, "confirmation", func() bool { _, n := c.Sent(); return n == 4 })
	ts.wantSent(c, 4, 4)
}

// A ping out of turn must be answered in time, and the next comes an interval after its pong, even if the interval is shorter than the timeout.
func TestPingOutOfTurn(t *testing.T) {
	ts := serve(t, Options{PingInterval: 20 * time.Millisecond, PingTimeout: 10 * time.Second}, nil)
	p := ts.websocket()
	c := ts.session(0).conn
	begun := time.Now()
	for range 5 {
		c.Ping() // If it comes too soon the server pings by itself.
		if _, data := p.read(); data != "2" {
			t.Fatalf("%q, want a ping", data)
		}
		p.write(text("3"))
		eventually(t, "pong", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.awaitingPong
		})
	}
	if _, data := p.read(); data != "2" || time.Since(begun) > 5*time.Second {
		t.Errorf("%q after %v, want a ping soon", data, time.Since(begun))
	}

	late := serve(t, Options{PingTimeout: 30 * time.Millisecond}, nil)
	late.websocket()
	eventually(t, "ping", func() bool {
		c := late.session(0).conn
		c.Ping() // Nothing happens as long as the server has not taken note that the handshake is written.
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.awaitingPong
	})
	eventually(t, "close", func() bool { return late.session(0).closedFor() == ReasonPingTimeout })
}

// The time of a handler is not the client's: pongs that wait behind it are not missed, on either transport, and once it has returned a client
// that does not answer is found as any other.
func TestSlowHandlerIsNoPingTimeout(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	ts := serve(t, Options{PingInterval: 20 * time.Millisecond, PingTimeout: 50 * time.Millisecond}, func(s *recorder) {
		s.onMessage = func([]byte, bool) {
			enter <- struct{}{}
			<-leave
		}
	})
	check := func(c *Conn, s *recorder) {
		t.Helper()
		<-enter
		var excused time.Duration
		eventually(t, "several times the ping timeout", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			if excused == 0 && c.awaitingPong {
				excused = c.heartbeat
			}
			return excused != 0 && c.heartbeat > excused+100*time.Millisecond
		})
		if got := s.closedFor(); got != "" {
			t.Fatalf("closed for %q while its handler runs", got)
		}
		leave <- struct{}{}
	}
	p := ts.websocket()
	p.write(text("4x") + text("3"))
	check(ts.session(0).conn, ts.session(0))
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPingTimeout })

	q := ts.polling()
	posted := make(chan struct{})
	go func() {
		ts.want("POST", q, "4x\x1e3", 200, "ok")
		close(posted)
	}()
	check(ts.session(1).conn, ts.session(1))
	<-posted
	eventually(t, "close", func() bool { return ts.session(1).closedFor() == ReasonPingTimeout })
	ts.want("GET", q, "", 400, `{"code":1,"message":"Session ID unknown"}`)
}

// A message that was handled since the ping excuses its pong once: it may wait behind further ones.
func TestExcuses(t *testing.T) {
	ts := serve(t, Options{PingInterval: time.Hour, PingTimeout: time.Hour}, nil)
	q := ts.polling()
	ts.want("POST", q, "6", 200, "ok")
	c := ts.session(0).conn
	late := func() {
		c.mu.Lock()
		c.heartbeat = 0
		c.mu.Unlock()
		c.look(c.srv.now())
	}
	c.Ping()
	ts.want("POST", q, "4x", 200, "ok")
	late()
	ts.want("POST", q, "4y", 200, "ok")
	late()
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPingTimeout })
}

func TestPingTimeoutWhilePolling(t *testing.T) {
	ts := serve(t, Options{PingInterval: 20 * time.Millisecond, PingTimeout: 30 * time.Millisecond}, nil)
	q := ts.polling()
	ts.want("GET", q, "", 200, "2")
	ts.want("GET", q, "", 200, "1") // It waits for something until the pong is too late.
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPingTimeout })
	if n := ts.Stats(); n.PingTimeouts != 1 || n.Pollings != 0 {
		t.Errorf("stats %+v", n)
	}
}

// A session whose client never comes back ends no later than its first ping would have to be answered.
func TestPingTimeoutWithoutAPoll(t *testing.T) {
	ts := serve(t, Options{PingInterval: 30 * time.Millisecond, PingTimeout: 20 * time.Millisecond}, nil)
	q := ts.polling()
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPingTimeout })
	ts.want("GET", q, "", 400, `{"code":1,"message":"Session ID unknown"}`)
}
