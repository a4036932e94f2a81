package socketio

import (
	"fmt"
	"strings"
	"testing"
)

// A namespace by function is made for its first socket, has the handlers of the family, and goes with its last.
func TestFamily(t *testing.T) {
	var j journal
	var tenants, later *Family
	ts := serve(t, Options{FamilyNamespacesMax: 2}, func(s *Server) {
		s.Of("/tenant-static")
		tenants = s.OfFunc(func(name string) bool { return strings.HasPrefix(name, "/tenant-") })
		later = s.OfFunc(func(name string) bool { return strings.HasPrefix(name, "/t") })
		tenants.OnAuth(func(h *Handshake) error {
			if string(h.Auth) == `{"no":1}` {
				return &ConnectError{Message: "no"}
			}
			return nil
		})
		tenants.OnConnect(func(s *Socket) { j.add("connect %s", s.Namespace().Name()) })
		tenants.OnEvent(func(s *Socket, e *Event) { _ = e.Ack(s.Namespace().Name()) }) // The peer waits for it.
		tenants.OnDisconnect(func(s *Socket, reason string) { j.add("disconnect %s: %s", s.Namespace().Name(), reason) })
	})
	connected := func(p *peer, name string) {
		t.Helper()
		p.send("40" + name + ",")
		if got := p.read(); !strings.HasPrefix(got, "40"+name+`,{"sid":"`) {
			t.Fatalf("answer to CONNECT %s: %q", name, got)
		}
	}
	p, q := ts.dial("", nil), ts.dial("", nil)
	p.send("40/other,", `40/tenant-a,{"no":1}`)
	p.want(`44/other,{"message":"Invalid namespace"}`, `44/tenant-a,{"message":"no"}`)
	if len(tenants.Children()) != 0 {
		t.Error("a refused client left a child")
	}
	connected(p, "/tenant-static") // It is no child: no handler hears of it.
	connected(p, "/tenant-a")
	connected(q, "/tenant-a")
	connected(q, "/tenant-b")
	q.send("40/tenant-c,")
	q.want(`44/tenant-c,{"message":"Too many namespaces"}`)
	a := tenants.Child("/tenant-a")
	if a == nil || a.Len() != 2 || len(tenants.Children()) != 2 || len(later.Children()) != 0 || ts.Of("/tenant-a") != a {
		t.Fatalf("children %v of the one, %v of the other", tenants.Children(), later.Children())
	}
	p.send(`42/tenant-a,7["who"]`)
	p.want(`43/tenant-a,7["/tenant-a"]`)
	if err := tenants.Emit("all", 1); err != nil {
		t.Fatal(err)
	}
	p.want(`42/tenant-a,["all",1]`)
	got := fmt.Sprint(q.read(), q.read())
	if !strings.Contains(got, `42/tenant-a,["all",1]`) || !strings.Contains(got, `42/tenant-b,["all",1]`) {
		t.Errorf("emitted to all: %s", got)
	}
	p.send("41/tenant-a,")
	waitFor(t, "the one to leave", func() bool { return a.Len() == 1 })
	q.conn.CloseNow()
	waitFor(t, "end of the children", func() bool { return len(tenants.Children()) == 0 })
	j.want(t, "connect /tenant-a", "connect /tenant-a", "connect /tenant-b", "disconnect /tenant-a: client namespace disconnect",
		"disconnect /tenant-a: transport close", "disconnect /tenant-b: transport close")
	connected(p, "/tenant-c") // There is room again.
	connected(p, "/tenant-a")
	if tenants.Child("/tenant-a") == a {
		t.Error("a child came back")
	}
}

// A handler that panics leaves no child behind.
func TestFamilyPanics(t *testing.T) {
	var f *Family
	ts := serve(t, Options{}, func(s *Server) {
		f = s.OfFunc(func(name string) bool {
			if name == "/match" {
				panic("told to")
			}
			return true
		})
		f.OnAuth(func(h *Handshake) error {
			if h.Auth == nil {
				panic("told to")
			}
			return nil
		})
		f.OnConnect(func(*Socket) { panic("told to") })
	})
	for _, packet := range []string{"40/match", "40/auth", "40/connect,{}"} {
		p := ts.dial("", nil)
		p.send(packet)
		for p.read() != "closed" {
		}
	}
	waitFor(t, "no children", func() bool { return len(f.Children()) == 0 })
}
