package socketio

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// joinThree connects three clients, whose sockets it returns in their order.
func (ts *testServer) joinThree() (peers [3]*peer, sockets [3]*Socket) {
	ts.t.Helper()
	for i := range peers {
		p, sid := ts.join()
		peers[i], sockets[i] = p, ts.Of("/").Socket(sid)
		if sockets[i] == nil {
			waitFor(ts.t, "socket", func() bool { sockets[i] = ts.Of("/").Socket(sid); return sockets[i] != nil })
		}
	}
	return peers, sockets
}

func TestBroadcastWithAck(t *testing.T) {
	ts := serve(t, Options{ReplyBytesMax: 40}, func(s *Server) { s.Of("/") })
	ns := ts.Of("/")
	peers, sockets := ts.joinThree()
	ask := func(ctx context.Context, target Target, answer func()) (string, int) {
		t.Helper()
		type result struct {
			replies []Reply
			missing int
		}
		results := make(chan result)
		go func() {
			replies, missing, err := target.EmitWithAck(ctx, "q", 1)
			if err != nil {
				t.Error(err)
			}
			results <- result{replies, missing}
		}()
		answer()
		r := <-results
		var lines []string
		for _, reply := range r.replies {
			lines = append(lines, fmt.Sprintf("%d %s", slices.Index(sockets[:], reply.Socket), reply.Args))
		}
		slices.Sort(lines)
		return strings.Join(lines, ", "), r.missing
	}
	ctx := context.Background()
	all := ns.To()

	got, missing := ask(ctx, all, func() {
		for i, p := range peers {
			p.want(`421["q",1]`)
			p.send(fmt.Sprintf(`431["from",%d]`, i), `431["again"]`)
		}
	})
	if got != `0 ["from" 0], 1 ["from" 1], 2 ["from" 2]` || missing != 0 {
		t.Errorf("all answer: %s, %d missing", got, missing)
	}

	// One does not answer in time, and may do so later.
	short, cancel := context.WithCancel(ctx)
	got, missing = ask(short, all, func() {
		for _, p := range peers[:2] {
			p.want(`422["q",1]`)
			p.send(`432[]`)
		}
		waitFor(t, "two answers", func() bool {
			owing := 0
			for _, s := range sockets {
				s.mu.Lock()
				owing += len(s.acks)
				s.mu.Unlock()
			}
			return owing == 1
		})
		cancel()
	})
	// Both answers are there, but a context that has ended may be seen first.
	if missing < 1 || missing+strings.Count(got, "[]") != 3 {
		t.Errorf("two answer: %s, %d missing", got, missing)
	}
	peers[2].want(`422["q",1]`)
	peers[2].send(`432["late"]`)

	// Answers beyond the bound are missing, and one that goes.
	got, missing = ask(ctx, all, func() {
		peers[0].want(`423["q",1]`)
		peers[0].send(`433["` + strings.Repeat("x", 50) + `"]`)
		peers[1].want(`423["q",1]`)
		peers[1].send(`433[` + strings.Repeat("1,", 45) + `1]`)
		peers[2].want(`423["q",1]`)
		peers[2].conn.CloseNow()
	})
	if got != "" || missing != 3 {
		t.Errorf("none counts: %s, %d missing", got, missing)
	}
	if got, missing := ask(ctx, ns.To("nobody"), func() {}); got != "" || missing != 0 {
		t.Errorf("of nobody: %s, %d missing", got, missing)
	}
	if _, _, err := all.EmitWithAck(ctx, "q", func() {}); err == nil {
		t.Error("a function was encoded")
	}
	for i, s := range sockets {
		s.mu.Lock()
		if len(s.acks) != 0 {
			t.Errorf("socket %d still owes %d acknowledgements", i, len(s.acks))
		}
		s.mu.Unlock()
	}
}

func TestAcksPendingMax(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) { s.Of("/") })
	_, sockets := ts.joinThree()
	s := sockets[0]
	s.mu.Lock()
	s.acks = make([]pendingAck, acksPendingMax)
	s.mu.Unlock()
	if _, err := s.EmitWithAck(t.Context(), "q"); err != ErrAcksPending {
		t.Errorf("EmitWithAck: %v, want ErrAcksPending", err)
	}
	if replies, missing, err := ts.Of("/").To(s.ID()).EmitWithAck(t.Context(), "q"); len(replies) != 0 || missing != 1 || err != nil {
		t.Errorf("EmitWithAck to it alone: %v, %d missing, %v", replies, missing, err)
	}
	s.mu.Lock()
	s.acks = nil
	s.mu.Unlock()
}

func TestTargetActs(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) { s.Of("/") })
	ns := ts.Of("/")
	peers, sockets := ts.joinThree()
	ns.Except(sockets[2].ID()).Join("x")
	ns.To(sockets[0].ID(), sockets[2].ID()).Join("y")
	if got := ns.To("x", "y").Except("x").Sockets(); len(got) != 1 || got[0] != sockets[2] {
		t.Errorf("in y and not in x: %v", got)
	}
	ns.To("y").Leave("x")
	if got := ns.To("x").Sockets(); len(got) != 1 || got[0] != sockets[1] {
		t.Errorf("in x: %v", got)
	}
	// All but the sender.
	if err := ns.Except(sockets[0].ID()).Emit("said"); err != nil {
		t.Fatal(err)
	}
	ns.To("y").Disconnect(false)
	peers[0].want("41")
	peers[1].want(`42["said"]`)
	peers[2].want(`42["said"]`, "41")
	ns.To().Disconnect(true)
	peers[1].want("closed")
	if ns.Len() != 0 {
		t.Errorf("%d sockets are left", ns.Len())
	}
}

// What is volatile goes to who is ready for it: not to one whose poll does not wait, not with its attachments either, and it does not come later.
func TestVolatile(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) { s.Of("/") })
	ns := ts.Of("/")
	volatile, err := NewPacket("/", "volatile", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	volatile = volatile.WithVolatile()
	p, _ := ts.join()
	waitFor(t, "socket", func() bool { return ns.Len() == 1 })
	ns.Send(volatile)
	p.want(`451-["volatile",{"_placeholder":true,"num":0}]`, "b:x")

	request := func(method, query, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, ts.http.URL+"/socket.io/?EIO=4&transport=polling"+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	open := request("GET", "", "")
	sid := "&sid=" + open[len(`0{"sid":"`):strings.Index(open, `","`)]
	request("POST", sid, "40")
	if got := request("GET", sid, ""); !strings.HasPrefix(got, `40{"sid":"`) {
		t.Fatalf("answer to CONNECT: %q", got)
	}
	before := ts.Stats().Dropped
	ns.Send(NewRawPacket("/", "lost").WithVolatile())
	ns.Send(volatile)
	if n := ts.Stats().Dropped - before; n != 3 {
		t.Errorf("%d frames were dropped, want 3: no poll waits", n)
	}
	poll := make(chan string)
	go func() { poll <- request("GET", sid, "") }()
	deadline := time.After(10 * time.Second)
	for {
		ns.Send(NewRawPacket("/", "taken").WithVolatile())
		select {
		case got := <-poll:
			if !strings.HasPrefix(got, `42["taken"]`) {
				t.Errorf("poll: %q, want the event that came while it waited", got)
			}
			return
		case <-deadline:
			t.Fatal("nothing reached the poll")
		case <-time.After(time.Millisecond):
		}
	}
}
