package engineio

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestFrame(t *testing.T) {
	for _, size := range []int{0, 124, 125, 65534, 65535, 65536} {
		data := strings.Repeat("x", size)
		f := textFrame(data)
		if got := string(f.appendPayload(nil)); got != "4"+data || f.payloadSize() != len(got) {
			t.Errorf("payload of %d bytes: %d, announced %d", size, len(got), f.payloadSize())
		}
		if got := f.wire[f.headerAt:]; string(got) != "4"+data || len(f.wire) != cap(f.wire) {
			t.Errorf("frame of %d bytes: %d of %d", size, len(got), cap(f.wire))
		}
		b := BinaryFrame([]byte(data))
		if got := b.appendPayload(nil); b.payloadSize() != len(got) || got[0] != 'b' {
			t.Errorf("binary payload of %d bytes: %d, announced %d", size, len(got), b.payloadSize())
		}
	}
}

func TestPingTimeout(t *testing.T) {
	ts := serve(t, Options{PingInterval: 30 * time.Millisecond, PingTimeout: 30 * time.Millisecond}, nil)
	p := ts.websocket()
	if op, data := p.read(); op != opText || data != "2" {
		t.Fatalf("%x %q, want a ping", op, data)
	}
	p.write(text("3"))
	if op, data := p.read(); op != opText || data != "2" {
		t.Fatalf("%x %q, want a second ping after the pong", op, data)
	}
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPingTimeout })
	if n := ts.Stats(); n.PingTimeouts != 1 || n.WebSockets != 0 {
		t.Errorf("stats %+v", n)
	}
}

func TestSetDeadline(t *testing.T) {
	ts := serve(t, Options{PingTimeout: 250 * time.Millisecond}, func(s *recorder) {
		s.conn.SetDeadline(20 * time.Millisecond)
	})
	p := ts.websocket()
	p.wantClose(0)
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTimeout })

	q := ts.polling()
	ts.session(1).conn.SetDeadline(0)
	ts.want("POST", q, "4x", 200, "ok")
}

// The wheel gives each connection at its tick, not before, even when it is moved, and beyond its horizon.
func TestWheel(t *testing.T) {
	w := &wheel{tick: time.Second}
	a, b, far := &Conn{}, &Conn{}, &Conn{}
	w.put(a, 5*time.Second)
	w.put(b, 5*time.Second)
	w.put(far, time.Hour)
	w.put(b, 3500*time.Millisecond)
	taken := map[*Conn]int{}
	for now := time.Duration(0); now < wheelSlots*time.Second; now += time.Second {
		for _, c := range w.take(nil, now) {
			taken[c] = int(now / time.Second)
		}
		if now == 4*time.Second {
			w.remove(a)
			w.remove(a)
		}
	}
	if _, found := taken[a]; found || taken[b] != 4 || taken[far] != wheelSlots-1 {
		t.Errorf("taken at %v, want b at 4 and far at the horizon", taken)
	}
}

// A client that does not read is cut at the bound, and the server loses no memory to it.
func TestSlowClientIsCut(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 256 << 10, WriteTimeout: time.Minute}, nil)
	p := ts.websocket()
	other := ts.websocket()
	slow := ts.session(0)
	f := textFrame(strings.Repeat("x", 32<<10))
	sent := 0
	eventually(t, "bound", func() bool { sent++; return slow.conn.Send(f) != nil })
	eventually(t, "close", func() bool { return slow.closedFor() == ReasonSlow })
	if n := ts.Stats(); n.SlowCloses != 1 || n.QueueBytes != 0 || n.WebSockets != 1 {
		t.Errorf("stats %+v", n)
	}
	other.write(text("4unharmed"))
	if _, data := other.read(); data != "4unharmed" {
		t.Errorf("other client: %q", data)
	}
	_ = p
}

// A socket that would block is written by a goroutine of its own until it is drained, in order, and then by the flusher again.
func TestSlowClientCatchesUp(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 64 << 20}, nil)
	p := ts.websocket()
	s := ts.session(0)
	const n = 2000
	pad := strings.Repeat("x", 8<<10)
	for i := range n {
		if err := s.conn.Send(textFrame(fmt.Sprint(i, pad))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if _, data := p.read(); data != fmt.Sprint("4", i, pad) {
			t.Fatalf("message %d is %.20q", i, data)
		}
	}
	eventually(t, "end of the slow writer", func() bool {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		return !s.conn.slow && s.conn.queueBytes == 0
	})
	p.write(text("4again"))
	if _, data := p.read(); data != "4again" {
		t.Errorf("after catching up: %q", data)
	}
}

func TestWriteTimeout(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 64 << 20, WriteTimeout: 50 * time.Millisecond}, nil)
	ts.websocket()
	s := ts.session(0)
	for range 32 {
		_ = s.conn.Send(textFrame(strings.Repeat("x", 1<<20))) // It fails as soon as the time is over.
	}
	eventually(t, "close", func() bool { return s.closedFor() == ReasonSlow })
}

// While a connection is congested the newest droppable frame of a key stays, and all go before a frame that must not be lost would not fit.
func TestDroppable(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 1000}, nil)
	q := ts.polling()
	c := ts.session(0).conn
	droppable := func(key, data string) *Frame {
		f := textFrame(data).Droppable(key)
		return &f
	}
	send := func(f *Frame) {
		t.Helper()
		if err := c.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	send(droppable("typing", "1"))
	send(droppable("typing", "2")) // Not congested: both stay.
	send(textFrame(strings.Repeat("a", 400)))
	send(droppable("typing", "3"))
	send(droppable("presence", "4"))
	ts.want("GET", q, "", 200, "4"+strings.Repeat("a", 400)+"\x1e43\x1e44")

	send(droppable("typing", "5"))
	send(textFrame(strings.Repeat("b", 900)))
	send(textFrame(strings.Repeat("c", 90)))
	send(droppable("typing", "6"))
	ts.want("GET", q, "", 200, "4"+strings.Repeat("b", 900)+"\x1e4"+strings.Repeat("c", 90))
	if n := ts.Stats(); n.Dropped != 4 || n.QueueBytes != 0 {
		t.Errorf("stats %+v", n)
	}
}

func TestPanicEndsItsConnection(t *testing.T) {
	var logged bytes.Buffer
	ts := serve(t, Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, func(s *recorder) {
		s.onMessage = func(data []byte, _ bool) {
			if string(data) == "panic" {
				panic("told to")
			}
			_ = s.conn.Send(textFrame(string(data)))
		}
	})
	p, other := ts.websocket(), ts.websocket()
	p.write(text("4panic") + text("4unheard"))
	p.wantClose(0)
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonPanic })
	other.write(text("4x"))
	if _, data := other.read(); data != "4x" {
		t.Errorf("other client: %q", data)
	}
	if got := ts.session(0).messages; len(got) != 1 {
		t.Errorf("messages %q, want only the one that panicked", got)
	}
	if n := ts.Stats().Panics; n != 1 || !strings.Contains(logged.String(), "told to") {
		t.Errorf("%d panics counted, logged %q", n, logged.String())
	}
}

func TestPanicOfOpen(t *testing.T) {
	srv := NewServer(Options{}, func(*Conn, *http.Request) Session { panic("told to") })
	ts := &testServer{Server: srv, t: t}
	ts.serveHTTP()
	ts.websocket().wantClose(0)
	if n := srv.Stats().Panics; n != 1 {
		t.Errorf("%d panics counted", n)
	}
}

// What the session sends when it is made, or as its last, comes behind the open packet and before the close frame.
func TestSendAtOpenAndClose(t *testing.T) {
	ts := serve(t, Options{}, func(s *recorder) {
		_ = s.conn.Send(textFrame("welcome"))
		s.conn.Close()
	})
	p := ts.websocket()
	if _, data := p.read(); data != "4welcome" {
		t.Errorf("%q, want 4welcome", data)
	}
	p.wantClose(0)
}

// Go runs between messages, and not at the same time.
func TestGo(t *testing.T) {
	var running atomic.Int32
	ts := serve(t, Options{}, func(s *recorder) {
		s.onMessage = func(data []byte, _ bool) {
			if running.Add(1) != 1 {
				t.Error("Message runs beside another function of the session")
			}
			s.conn.Go(func() {
				if running.Add(1) != 1 {
					t.Error("Go runs beside Message")
				}
				running.Add(-1)
				_ = s.conn.Send(textFrame("done"))
			})
			running.Add(-1)
		}
	})
	p := ts.websocket()
	for range 100 {
		p.write(text("4x"))
	}
	for range 100 {
		if _, data := p.read(); data != "4done" {
			t.Fatalf("%q, want 4done", data)
		}
	}
}

func TestShutdown(t *testing.T) {
	ts := serve(t, Options{ShutdownSpread: 50 * time.Millisecond}, nil)
	var peers []*peer
	for range 10 {
		peers = append(peers, ts.websocket())
	}
	q := ts.polling()
	poll := make(chan string)
	go func() {
		_, body, _ := ts.request("GET", q, "")
		poll <- body
	}()
	eventually(t, "pending poll", func() bool { return ts.hasPoll(10) })
	for _, p := range peers {
		go func() {
			p.wantClose(0)
			p.conn.Close()
		}()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	if err := ts.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if took := time.Since(begun); took < 40*time.Millisecond {
		t.Errorf("Shutdown took %v, want it spread over 50 ms", took)
	}
	if got := <-poll; got != "1" {
		t.Errorf("pending poll: %q, want a close packet", got)
	}
	for i := range 11 {
		if got := ts.session(i).closedFor(); got != ReasonShutdown {
			t.Errorf("session %d closed for %q", i, got)
		}
	}
	if status, _, _ := ts.request("GET", "EIO=4&transport=polling", ""); status != 503 {
		t.Errorf("handshake after Shutdown: %d, want 503", status)
	}
}

// Clients that do not go are cut when the context ends.
func TestShutdownCuts(t *testing.T) {
	ts := serve(t, Options{}, nil)
	p := ts.websocket()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := ts.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v, want the context's error", err)
	}
	p.wantClose(0)
}

func TestUnmask(t *testing.T) {
	mask := [4]byte{0xA1, 0xB2, 0xC3, 0xD4}
	for n := range 40 {
		b := bytes.Repeat([]byte{0x5A}, n)
		unmask(b, mask)
		for i := range b {
			if b[i] != 0x5A^mask[i%4] {
				t.Fatalf("byte %d of %d: %x", i, n, b[i])
			}
		}
	}
}

func TestSIDs(t *testing.T) {
	ts := serve(t, Options{SIDPrefix: "node1."}, nil)
	seen := map[string]bool{}
	for range 1000 {
		sid := ts.newSID()
		if seen[sid] || !strings.HasPrefix(sid, "node1.") || len(sid) != len("node1.")+22 {
			t.Fatalf("sid %q", sid)
		}
		seen[sid] = true
	}
}
