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
		c.Ping()
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
	late.session(0).conn.Ping()
	eventually(t, "close", func() bool { return late.session(0).closedFor() == ReasonPingTimeout })
}
