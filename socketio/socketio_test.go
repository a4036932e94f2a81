package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/engineio"
)

// A testServer serves on loopback; prepare sets the handlers.
type testServer struct {
	*Server
	t    *testing.T
	http *httptest.Server
}

func serve(t *testing.T, opts Options, prepare func(*Server)) *testServer {
	t.Helper()
	s := NewServer(opts)
	prepare(s)
	ts := &testServer{s, t, httptest.NewServer(s)}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		ts.http.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return ts
}

// A peer is a client that speaks in packets.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

// dial opens a connection and reads the handshake of Engine.IO.
func (ts *testServer) dial(query string, header http.Header) *peer {
	ts.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	ts.t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, ts.http.URL+"/socket.io/?EIO=4&transport=websocket"+query, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(1 << 21)
	p := &peer{ts.t, conn, ctx}
	if open := p.read(); !strings.HasPrefix(open, "0{") {
		ts.t.Fatalf("first packet %q", open)
	}
	return p
}

// join opens a connection and joins the main namespace.
func (ts *testServer) join() (p *peer, sid string) {
	ts.t.Helper()
	p = ts.dial("", nil)
	p.send("40")
	answer := p.read()
	var connected struct{ SID string }
	if !strings.HasPrefix(answer, "40{") || json.Unmarshal([]byte(answer[2:]), &connected) != nil {
		ts.t.Fatalf("answer to CONNECT: %q", answer)
	}
	return p, connected.SID
}

func (p *peer) send(packets ...string) {
	p.t.Helper()
	for _, packet := range packets {
		if err := p.conn.Write(p.ctx, websocket.MessageText, []byte(packet)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *peer) sendBinary(data string) {
	p.t.Helper()
	if err := p.conn.Write(p.ctx, websocket.MessageBinary, []byte(data)); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next packet, but pings; that of a binary message behind "b:"; "closed" at the end.
func (p *peer) read() string {
	p.t.Helper()
	for {
		kind, data, err := p.conn.Read(p.ctx)
		switch {
		case p.ctx.Err() != nil:
			p.t.Fatal("nothing came in time")
		case err != nil:
			return "closed"
		case kind == websocket.MessageBinary:
			return "b:" + string(data)
		case string(data) != "2":
			return string(data)
		}
	}
}

func (p *peer) want(packets ...string) {
	p.t.Helper()
	for _, want := range packets {
		if got := p.read(); got != want {
			p.t.Fatalf("packet %q, want %q", got, want)
		}
	}
}

// A journal is what handlers were called for, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	j.mu.Unlock()
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	var got []string
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		j.mu.Lock()
		got = append(got[:0], j.lines...)
		j.mu.Unlock()
		if reflect.DeepEqual(got, lines) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("handlers were called for\n%q, want\n%q", got, lines)
		case <-tick.C:
		}
	}
}

// record sets handlers that write to the journal.
func (j *journal) record(ns *Namespace) {
	ns.OnConnect(func(*Socket) { j.add("connect %s", ns.Name()) })
	ns.OnEvent(func(_ *Socket, e *Event) { j.add("%s %s", e.Name, e.Args) })
	ns.OnDisconnect(func(_ *Socket, reason string) { j.add("disconnect %s: %s", ns.Name(), reason) })
}

func TestEvents(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnEvent(func(_ *Socket, e *Event) {
			if err := e.Ack(e.Name, len(e.Args)); err != nil {
				t.Errorf("Ack: %v", err)
			}
			if err := e.AckRaw([]byte("[]")); e.WantsAck() && err != ErrAcked {
				t.Errorf("second Ack: %v, want ErrAcked", err)
			}
		})
	})
	p, _ := ts.join()
	p.send(`42["unasked"]`, `420["a"]`, `4217["b",1,[2,{"x":"]"}],"\\\""]`, ` 42`[1:]+`9007199254740991["\u0063 \n"]`, "42/,5[\"d\" , null ]")
	p.want(`430["a",0]`, `4317["b",3]`, `439007199254740991["c \n",0]`, `435["d",1]`)
}

func TestLifeOfSocket(t *testing.T) {
	var j journal
	ts := serve(t, Options{}, func(s *Server) {
		j.record(s.Of("/"))
		j.record(s.Of("/x"))
	})
	p, _ := ts.join()
	p.send("40/x,")
	if got := p.read(); !strings.HasPrefix(got, `40/x,{"sid":"`) {
		t.Fatalf("answer to CONNECT: %q", got)
	}
	p.send(`42/x,["a",1]`, `42["b"]`, "41/x,", `42/x,["late"]`, `42["c"]`)
	want := []string{"connect /", "connect /x", "a [1]", "b []", "disconnect /x: client namespace disconnect", "c []"}
	j.want(t, want...)
	p.conn.Close(websocket.StatusNormalClosure, "")
	j.want(t, append(want, "disconnect /: transport close")...)
	if n := ts.Of("/").Len() + ts.Of("/x").Len(); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}

// Whatever is no packet ends its connection, with the reason "parse error", and no other.
func TestMalformed(t *testing.T) {
	var j journal
	ts := serve(t, Options{AttachmentBytesMax: 100, EventNameBytesMax: 20, ArgsMax: 3}, func(s *Server) { j.record(s.Of("/")) })
	bystander, _ := ts.join()
	connected := []string{"connect /"}
	for _, packet := range []string{
		"4", "4x", "47", "4\x00", "42", "42{}", "42[]", "42[true]", "42[null]", `42["a"`, `42["a"]x`, `42["a",]`, `42["a",01]`, "42[\"a\n\"]", `42["a","\ud8"]`,
		`42"a"`, `42-1["a"]`, `42abc["a"]`, `4299999999999999999999["a"]`, `429007199254740992["a"]`, `421.5["a"]`,
		`42["connect"]`, `42["disconnect"]`, `42["newListener"]`, `42["\u0063onnect_error"]`, `42["` + strings.Repeat("n", 21) + `"]`, `42["a",1,2,3,4]`,
		`42["deep",` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + "]",
		"43", "43[]", "43{}", `431`, `431{}`, `43x[]`,
		"40", "40{}", `44{"message":"x"}`, `40/x,[]`, `40/x,"s"`, `40/x,1`, `40/x,{`, `400/x,`, "40/" + strings.Repeat("x", 300) + ",",
		"41{}", `41[]`,
		`45["a"]`, `450-["a"]`, `4511-["a"]`, `45-1-["a"]`, `451["a"]`, `45x-["a"]`, `451.0-["a"]`, `45999999999999-["a"]`, `46`, `461-`,
		`451-["a",{"_placeholder":true,"num":0}]` + "\x1f" + `42["text before the attachment"]`,
		`451-["a",{"_placeholder":true,"num":1}]` + "\x1fb:x", `451-["a",{"_placeholder":true,"num":-1}]` + "\x1fb:x",
		`451-["a",{"_placeholder":true}]` + "\x1fb:x", `451-["a",{"_placeholder":true,"num":"0"}]` + "\x1fb:x", `451-["a",[[{"_placeholder":true,"num":0.5}]]]` + "\x1fb:x",
		`451-["a",{"\u005fplaceholder":true,"num":9}]` + "\x1fb:x",
		`452-["a"]` + "\x1fb:" + strings.Repeat("x", 60) + "\x1fb:" + strings.Repeat("x", 60),
		"b:unexpected",
	} {
		t.Run(fmt.Sprintf("%.40q", packet), func(t *testing.T) {
			p, _ := ts.join()
			p.t = t
			for part := range strings.SplitSeq(packet, "\x1f") {
				if data, ok := strings.CutPrefix(part, "b:"); ok {
					p.sendBinary(data)
				} else {
					p.send(part)
				}
			}
			p.want("closed")
			connected = append(connected, "connect /", "disconnect /: parse error")
			j.want(t, connected...)
		})
	}
	// These mean nothing special to a server.
	bystander.send(`42["error","unharmed"]`, `42["message"]`, `42["disconnecting "]`, `42[""]`)
	j.want(t, append(connected, `error ["unharmed"]`, "message []", "disconnecting  []", " []")...)
}

func TestBeforeConnect(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) { s.Of("/") })
	for _, packet := range []string{`42["a"]`, "41", "431[]", `451-["a"]`} {
		p := ts.dial("", nil)
		p.send(packet)
		p.want("closed")
	}
}

func TestConnectTimeout(t *testing.T) {
	ts := serve(t, Options{ConnectTimeout: 30 * time.Millisecond, Engine: engineio.Options{PingTimeout: 250 * time.Millisecond}}, func(s *Server) {
		s.Of("/").OnAuth(func(*Handshake) error { return &ConnectError{Message: "no"} })
		s.Of("/open")
	})
	p := ts.dial("", nil)
	p.send("40")
	p.want(`44{"message":"no"}`, "closed")
	joined := ts.dial("", nil)
	joined.send("40/open,")
	_ = joined.read()
	idle := ts.dial("", nil)
	idle.want("closed") // So that the time is over for the one that joined, too.
	if n := ts.Of("/open").Len(); n != 1 {
		t.Errorf("%d sockets in /open, want 1", n)
	}
}

func TestHandshake(t *testing.T) {
	got := make(chan *Handshake, 1)
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnAuth(func(h *Handshake) error {
			got <- h
			h.Data = "from auth"
			return nil
		})
		s.Of("/").OnConnect(func(s *Socket) {
			if s.Data() != "from auth" {
				t.Errorf("Data() = %v", s.Data())
			}
			s.SetData(2)
			_ = s.Emit("data", s.Data()) // The peer waits for it.
		})
		s.Of("/refused").OnAuth(func(*Handshake) error {
			return fmt.Errorf("wrapped: %w", &ConnectError{Message: "not you", Data: map[string]int{"retry": 3}})
		})
		s.Of("/plain").OnAuth(func(*Handshake) error { return fmt.Errorf("a \"plain\" error") })
	})
	p := ts.dial("&a=1&a=2&token=x%26y", http.Header{"User-Agent": {"tester"}, "X-Other": {"not kept"}, "Authorization": {"Bearer x"}})
	p.send(`40{"token":"é"}`)
	if got := p.read(); !strings.HasPrefix(got, `40{"sid":"`) {
		t.Fatalf("answer %q", got)
	}
	p.want(`42["data",2]`)
	h := <-got
	if string(h.Auth) != `{"token":"é"}` || h.Query.Encode() != "a=1&a=2&token=x%26y" || !strings.HasPrefix(h.RemoteAddr, "127.0.0.1:") ||
		!reflect.DeepEqual(h.Header, http.Header{"Authorization": {"Bearer x"}}) || time.Since(h.Time) > time.Minute {
		t.Errorf("handshake %+v", h)
	}
	q := ts.dial("", http.Header{"X-Forwarded-For": {"192.0.2.1", strings.Repeat("x", 17<<10), "192.0.2.2"}})
	q.send("40")
	if h := <-got; !reflect.DeepEqual(h.Header, http.Header{"X-Forwarded-For": {"192.0.2.1"}}) {
		t.Errorf("headers %.200v, want those before the one that is too long", h.Header)
	}
	p.send("40/refused,", "40/plain", "40/nowhere,{}")
	p.want(`44/refused,{"message":"not you","data":{"retry":3}}`, `44/plain,{"message":"a \"plain\" error"}`, `44/nowhere,{"message":"Invalid namespace"}`)
}

// A client that presents a pid may get the id of its earlier socket back, and is told a pid; a live socket keeps its id to itself.
func TestRecoveryHooks(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnAuth(func(h *Handshake) error {
			h.SocketID, h.GivePID = h.PID, h.Offset
			return nil
		})
		s.Of("/").OnConnect(func(s *Socket) {
			_ = s.Emit("id", s.ID()) // The peer waits for it.
			sent, confirmed := s.Sent()
			if sent != 2 || confirmed != 0 {
				t.Errorf("Sent() = %d, %d, want CONNECT and one event", sent, confirmed)
			}
			s.Ping()
		})
	})
	ns := ts.Of("/")
	p := ts.dial("", nil)
	p.send(`40{"pid":"old \"id\"","offset":"o"}`)
	p.want(`40{"sid":"old \"id\"","pid":"o"}`, `42["id","old \"id\""]`)
	first := ns.Socket(`old "id"`)
	if first == nil || ns.Socket("none") != nil {
		t.Fatal("Socket(id) does not find what is there")
	}
	p.send("3")
	waitFor(t, "confirmation", func() bool { _, n := first.Sent(); return n == 2 })

	second := ts.dial("", nil)
	second.send(`40{"pid":"old \"id\""}`)
	if got := second.read(); !strings.HasPrefix(got, `40{"sid":"`) || strings.Contains(got, "old") || strings.Contains(got, "pid") {
		t.Errorf("%q while a socket has the id", got)
	}
	if got := second.read(); !strings.HasPrefix(got, `42["id","`) || strings.Contains(got, "old") {
		t.Errorf("%q, want an id of its own", got)
	}
	if ns.Socket(`old "id"`) != first || ns.Len() != 2 {
		t.Error("the second socket took the place of the first")
	}
	for auth, want := range map[string]Handshake{
		`{"pid":1,"offset":"o"}`:       {Offset: "o"},
		`{"pid":"p","offset":{}}`:      {PID: "p"},
		`{"PID":"p"}`:                  {},
		`{"auth":{"pid":"p"}}`:         {},
		`{"token":"t","pid":"\u0070"}`: {PID: "p"},
		`{"pid":"` + strings.Repeat("p", recoveryBytesMax) + `"}`: {},
	} {
		var h Handshake
		h.setAuth([]byte(auth))
		if h.PID != want.PID || h.Offset != want.Offset || string(h.Auth) != auth {
			t.Errorf("of %.40s: pid %q, offset %q, want %q, %q", auth, h.PID, h.Offset, want.PID, want.Offset)
		}
	}
}

func TestNamespacesMax(t *testing.T) {
	ts := serve(t, Options{NamespacesMax: 2}, func(s *Server) { s.Of("/"); s.Of("/a"); s.Of("/b") })
	p, _ := ts.join()
	p.send("40/a,")
	_ = p.read()
	p.send("40/b,")
	p.want("closed")
}

func TestBinary(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnEvent(func(_ *Socket, e *Event) {
			first, ok := e.Attachment(0)
			_, none := e.Attachment(1)
			_, outside := e.Attachment(7)
			if !ok || none || outside || len(e.Attachments) != 2 {
				t.Errorf("attachments of %s: %q", e.Args, e.Attachments)
			}
			if err := e.Ack("x", first, nil, e.Attachments[1]); err != nil {
				t.Error(err)
			}
		})
	})
	p, _ := ts.join()
	p.send(`452-7["bin",{"num":0,"_placeholder":true},{"in":[{"_placeholder":true,"num":1}]}]`)
	p.sendBinary("\x00\xff")
	p.sendBinary("")
	p.want(`462-7["x",{"_placeholder":true,"num":0},null,{"_placeholder":true,"num":1}]`, "b:\x00\xff", "b:")
}

// Binary data may be anywhere in an argument, and goes back as it came.
func TestBinaryInside(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnEvent(func(s *Socket, e *Event) {
			p, err := NewBinaryPacket("/", e.Name, e.Args, e.Attachments)
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.Send(p) // the peer waits for it
			if err := e.AckBinary(e.Args, e.Attachments); err != nil {
				t.Error(err)
			}
			if err := e.AckBinary(nil, nil); err != ErrAcked {
				t.Errorf("a second acknowledgement: %v", err)
			}
			if _, err := NewBinaryPacket("/", "x", e.Args, e.Attachments[:1]); err == nil {
				t.Error("a placeholder without its attachment was taken")
			}
		})
	})
	p, _ := ts.join()
	const args = `{"a":[{"_placeholder":true,"num":1}]},{"b":{"_placeholder":true,"num":0}}]`
	p.send(`452-7["bin",` + args)
	p.sendBinary("zero")
	p.sendBinary("one")
	p.want(`452-["bin",`+args, "b:zero", "b:one", `462-7[`+args, "b:zero", "b:one")
}

// The official server takes numbers for names of events.
func TestNumberAsEventName(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnEvent(func(_ *Socket, e *Event) {
			if err := e.Ack(e.Name, e.Args); err != nil {
				t.Error(err)
			}
		})
	})
	p, _ := ts.join()
	p.send(`421[1,"x"]`, `422[-1.5e3]`)
	p.want(`431["1",["x"]]`, `432["-1.5e3",[]]`)
	p.send(`423[true]`)
	p.want("closed")
}

func TestAttachmentTimeout(t *testing.T) {
	var j journal
	ts := serve(t, Options{AttachmentTimeout: 20 * time.Millisecond, Engine: engineio.Options{PingTimeout: 250 * time.Millisecond}}, func(s *Server) { j.record(s.Of("/")) })
	p, _ := ts.join()
	p.send(`452-["bin"]`)
	p.sendBinary("x")
	p.want("closed")
	j.want(t, "connect /", "disconnect /: timeout")
}

func TestEmitWithAck(t *testing.T) {
	type result struct {
		args []json.RawMessage
		err  error
	}
	sockets := make(chan *Socket, 1)
	ts := serve(t, Options{}, func(s *Server) { s.Of("/").OnConnect(func(s *Socket) { sockets <- s }) })
	p, _ := ts.join()
	s := <-sockets
	results := make(chan result, 1)
	ask := func(ctx context.Context) {
		go func() {
			args, err := s.EmitWithAck(ctx, "q", 1)
			results <- result{args, err}
		}()
	}
	ctx := context.Background()
	ask(ctx)
	p.want(`421["q",1]`)
	p.send(`432["not asked"]`, `431["yes",{"a":[]}]`, `431["again"]`)
	if r := <-results; r.err != nil || fmt.Sprintf("%s", r.args) != `["yes" {"a":[]}]` {
		t.Errorf("acknowledged with %s, %v", r.args, r.err)
	}
	ask(ctx)
	p.want(`422["q",1]`)
	p.send(`461-2[{"_placeholder":true,"num":0}]`)
	p.sendBinary("\x01\x02\x03")
	if r := <-results; r.err != nil || fmt.Sprintf("%s", r.args) != `["AQID"]` {
		t.Errorf("acknowledged with %s, %v", r.args, r.err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	ask(short)
	p.want(`423["q",1]`)
	if r := <-results; r.err != context.DeadlineExceeded {
		t.Errorf("without an answer: %v", r.err)
	}
	p.send(`433["too late"]`)
	ask(ctx)
	p.want(`424["q",1]`)
	p.conn.CloseNow()
	if r := <-results; r.err != ErrDisconnected {
		t.Errorf("after the end: %v, want ErrDisconnected", r.err)
	}
	if _, err := s.EmitWithAck(ctx, "q"); err != ErrDisconnected {
		t.Errorf("EmitWithAck of a socket that ended: %v", err)
	}
}

func TestRooms(t *testing.T) {
	ts := serve(t, Options{}, func(s *Server) {
		s.Of("/").OnEvent(func(s *Socket, e *Event) {
			for _, arg := range e.Args {
				room, _ := stringValue(arg)
				if e.Name == "join" {
					s.Join(room)
				} else {
					s.Leave(room)
				}
			}
			_ = e.Ack(s.Rooms()) // The peer waits for it.
		})
	})
	ns := ts.Of("/")
	a, aID := ts.join()
	b, bID := ts.join()
	c, _ := ts.join()
	a.send(`421["join","x","y","x"]`)
	a.want(`431[["x","y"]]`)
	b.send(`421["join","x"]`)
	b.want(`431[["x"]]`)
	c.send(`421["join","y"]`)
	c.want(`431[["y"]]`)

	emit := func(name string, target Target) {
		t.Helper()
		if err := target.Emit(name); err != nil {
			t.Fatal(err)
		}
	}
	emit("1", ns.To("x"))
	emit("2", ns.To("x", "y"))
	emit("3", ns.To("y").Except("x"))
	emit("4", ns.To("nobody"))
	emit("5", ns.To(bID))
	emit("6", ns.Except(aID))
	emit("7", Target{ns: ns})
	a.send(`422["leave","x","z"]`)
	a.want(`42["1"]`, `42["2"]`, `42["7"]`, `432[["y"]]`)
	emit("8", ns.To("x"))
	emit("9", ns.To("y"))
	a.want(`42["9"]`)
	b.want(`42["1"]`, `42["2"]`, `42["5"]`, `42["6"]`, `42["7"]`, `42["8"]`)
	c.want(`42["2"]`, `42["3"]`, `42["6"]`, `42["7"]`, `42["9"]`)
	a.conn.CloseNow()
	b.conn.CloseNow()
	c.conn.CloseNow()
	waitFor(t, "empty rooms", func() bool {
		ns.mu.RLock()
		defer ns.mu.RUnlock()
		return len(ns.rooms) == 0 && len(ns.sockets) == 0
	})
}

// Joins and leaves at random keep both sides of every membership true.
func TestMembershipsStayTrue(t *testing.T) {
	ns := newNamespace("/", &handlers{})
	var sockets []*Socket
	for i := range 20 {
		s := &Socket{ns: ns, id: fmt.Sprint(i)}
		ns.add(s, func() {})
		sockets = append(sockets, s)
	}
	x := uint32(1)
	for range 5000 {
		x = x*1664525 + 1013904223
		s, room := sockets[x>>8%20], fmt.Sprint("room", x>>16%10)
		if x>>28%2 == 0 {
			s.Join(room)
		} else {
			s.Leave(room)
		}
	}
	memberships := 0
	for _, s := range sockets {
		for _, m := range s.rooms {
			memberships++
			if m.room.members[m.at] != s || ns.rooms[m.room.name] != m.room {
				t.Fatalf("socket %s does not stand where it thinks in %s", s.id, m.room.name)
			}
		}
	}
	for name, r := range ns.rooms {
		memberships -= len(r.members)
		if len(r.members) == 0 {
			t.Errorf("room %s is empty", name)
		}
	}
	if memberships != 0 {
		t.Errorf("%d memberships without a member", memberships)
	}
	for _, s := range sockets {
		ns.remove(s)
	}
	if len(ns.rooms) != 0 {
		t.Errorf("%d rooms are left", len(ns.rooms))
	}
}

func TestDisconnect(t *testing.T) {
	var j journal
	ts := serve(t, Options{}, func(s *Server) {
		for _, ns := range []*Namespace{s.Of("/"), s.Of("/x")} {
			j.record(ns)
			ns.OnEvent(func(s *Socket, e *Event) {
				j.add("%s", e.Name)
				s.Disconnect(e.Name == "cut")
				s.Disconnect(false) // A second time changes nothing.
				if err := s.Emit("late"); e.Name == "kick" && err != ErrDisconnected {
					t.Errorf("Emit after Disconnect: %v", err)
				}
			})
		}
	})
	p, _ := ts.join()
	p.send("40/x")
	_ = p.read()
	p.send(`42["kick"]`, `42["not heard"]`)
	p.want("41")
	p.send("40")
	if got := p.read(); !strings.HasPrefix(got, `40{`) {
		t.Fatalf("CONNECT after Disconnect(false): %q", got)
	}
	p.send(`42/x,["cut"]`)
	p.want("closed")
	j.want(t, "connect /", "connect /x", "kick", "disconnect /: server namespace disconnect", "connect /", "cut",
		"disconnect /x: forced server close", "disconnect /: forced server close")
}

func TestShutdown(t *testing.T) {
	var j journal
	ts := serve(t, Options{}, func(s *Server) { j.record(s.Of("/")) })
	p, _ := ts.join()
	ended := make(chan string)
	go func() { ended <- p.read() }()
	if err := ts.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if got := <-ended; got != "closed" {
		t.Errorf("packet %q, want the end", got)
	}
	j.want(t, "connect /", "disconnect /: server shutting down")
}

func waitFor(t *testing.T, what string, ok func() bool) {
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
