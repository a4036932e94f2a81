package engineio

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "of what tests do at random; 0: another each time")

// Whatever is sent at random, to a client that takes it at random, on either transport: what is not droppable arrives whole and in order, or the
// connection is closed for it; of a key what arrives is in order; and the queue is counted right.
func TestNothingDurableIsDropped(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		srv := NewServer(Options{QueueBytesMax: 2000}, nil)
		s := &recorder{}
		c := &Conn{srv: srv, shard: srv.shards[0], state: stateOpen, session: s}
		s.conn = c
		srv.conns.Add(1)
		var durable, got int
		seen := map[string]int{}
		take := func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			body, _ := c.payload()
			for packet := range strings.SplitSeq(string(body), "\x1e") {
				var key string
				var n int
				if _, err := fmt.Sscanf(packet, "4%s %d", &key, &n); err != nil {
					continue // A noop.
				}
				switch {
				case key == "durable" && n != got:
					t.Fatalf("seed %d: durable frame %d, want %d", seed, n, got)
				case key == "durable":
					got++
				case n <= seen[key]:
					t.Fatalf("seed %d: frame %d of key %s after %d", seed, n, key, seen[key])
				default:
					seen[key] = n
				}
			}
		}
		open := true
		for step := 1; step < 200 && open; step++ {
			c.mu.Lock()
			c.slow = r.IntN(4) == 0
			c.mu.Unlock()
			pad := strings.Repeat(".", r.IntN(200))
			switch x := r.IntN(10); {
			case x < 4:
				key := string(rune('a' + x))
				f := textFrame(fmt.Sprint(key, " ", step, " ", pad)).Droppable(key)
				if c.Send(&f) != nil {
					t.Fatalf("seed %d: closed for a droppable frame", seed)
				}
			case x < 9:
				if open = c.Send(textFrame(fmt.Sprint("durable ", durable, " ", pad))) == nil; open {
					durable++
				}
			default:
				take()
			}
			sizes, droppable := 0, uint32(0)
			for _, f := range c.queue {
				sizes += len(f.wire)
				if f.key != "" {
					droppable++
				}
			}
			if open && (sizes != c.queueBytes || droppable != c.droppable || sizes > 2000) {
				t.Fatalf("seed %d: %d bytes and %d droppable frames wait, counted %d and %d", seed, sizes, droppable, c.queueBytes, c.droppable)
			}
		}
		if open {
			take()
			if got != durable {
				t.Fatalf("seed %d: %d durable frames arrived of %d", seed, got, durable)
			}
		} else if c.reason != ReasonSlow {
			t.Fatalf("seed %d: closed for %q", seed, c.reason)
		}
		c.abort(ReasonForcedClose)
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// To a WebSocket that is slow the newest of a key goes, though there is room for all.
func TestNewestOfAKeyGoesToASlowSocket(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 64 << 20}, nil)
	p := ts.websocket()
	c := ts.session(0).conn
	for slow := false; !slow; {
		if err := c.Send(textFrame(strings.Repeat("x", 1<<20))); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		slow = c.slow
		c.mu.Unlock()
	}
	for i := range 100 {
		f := textFrame(fmt.Sprint("typing ", i)).Droppable("typing")
		if err := c.Send(&f); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(textFrame("last")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		_, data := p.read()
		if strings.HasPrefix(data, "4typing") {
			got = append(got, data)
		}
		if data == "4last" {
			break
		}
		if data == "" {
			t.Fatal("the stream ended")
		}
	}
	if len(got) != 1 || got[0] != "4typing 99" {
		t.Errorf("got %q, want the newest alone", got)
	}
}

// BenchmarkDroppable sends a droppable frame to a client that has stopped reading, behind 4,000 frames that must not be lost.
func BenchmarkDroppable(b *testing.B) {
	srv := NewServer(Options{}, nil)
	c := &Conn{srv: srv, shard: srv.shards[0], state: stateOpen, session: noSession{}}
	srv.conns.Add(1)
	for range 4000 {
		_ = c.Send(textFrame(strings.Repeat("x", 250))) // They fit.
	}
	f := textFrame("typing").Droppable("typing")
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(&f); err != nil {
			b.Fatal(err)
		}
	}
	c.abort(ReasonForcedClose)
	_ = srv.Shutdown(b.Context()) // Nothing is left.
}

// Clients that stop reading cost one that reads nothing but their share of the bound: it gets every frame, in order, while they are cut.
func TestStalledClientsHarmNobody(t *testing.T) {
	const stalled, bound = 100, 256 << 10
	ts := serve(t, Options{QueueBytesMax: bound}, nil)
	reader := ts.websocket()
	for range stalled {
		ts.websocket()
	}
	pad := strings.Repeat("x", 32<<10)
	for i := 0; ts.Stats().WebSockets > 1; i++ {
		if i > 2000 {
			t.Fatalf("%d clients that read nothing are still there", ts.Stats().WebSockets-1)
		}
		f := textFrame(fmt.Sprint(i, " ", pad))
		for n := range stalled + 1 {
			_ = ts.session(n).conn.Send(f) // Those that were cut need nothing.
		}
		if _, data := reader.read(); data != fmt.Sprint("4", i, " ", pad) {
			t.Fatalf("frame %d is %.20q", i, data)
		}
		if n := ts.Stats().QueueBytes; n > stalled*bound {
			t.Fatalf("%d bytes wait, more than %d connections may have", n, stalled)
		}
	}
	if n := ts.Stats().SlowCloses; n != stalled {
		t.Errorf("%d clients were cut as slow, want %d", n, stalled)
	}
	for n := 1; n <= stalled; n++ {
		eventually(t, "close", func() bool { return ts.session(n).closedFor() == ReasonSlow })
	}
}
