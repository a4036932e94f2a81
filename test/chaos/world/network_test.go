//go:build chaos

package world

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A wire is a connection to a node on which requests are made one after the other.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

func connect(t *testing.T, n *Node) *wire {
	t.Helper()
	conn, err := net.DialTimeout("tcp", n.Address(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{conn, bufio.NewReader(conn)}
}

// ask writes a request and waits for the answer, at most so long.
func (c *wire) ask(most time.Duration) error {
	if _, err := fmt.Fprintf(c.conn, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", c.conn.RemoteAddr()); err != nil {
		return err
	}
	return c.answer(most)
}

func (c *wire) answer(most time.Duration) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(most)); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func (c *wire) asks(t *testing.T) {
	t.Helper()
	if err := c.ask(5 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestCutLinkKeepsBytesBack(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n := w.Nodes()[0]
	before := connect(t, n)
	before.asks(t)
	heal := inject(t, w, "cut", 1)
	if err := before.ask(time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a request over a cut link: %v, want that nothing comes", err)
	}
	if conn, err := net.DialTimeout("tcp", n.Address(), 500*time.Millisecond); err == nil {
		conn.Close()
		t.Error("a cut link takes a new connection")
	}
	heal()
	// The connection has outlived it, and what waited is sent again.
	if err := before.answer(10 * time.Second); err != nil {
		t.Errorf("the answer after the cut: %v", err)
	}
	connect(t, n).asks(t)
}

func TestHalfOfTheConnectionsAreCut(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n := w.Nodes()[0]
	var all []*wire
	for range 30 {
		c := connect(t, n)
		c.asks(t)
		all = append(all, c)
	}
	heal := inject(t, w, "cut-half", 1)
	cut := 0
	for _, c := range all {
		if c.ask(50*time.Millisecond) != nil {
			cut++
		}
	}
	if cut < 5 || cut > 25 {
		t.Errorf("of %d connections %d are cut, want about half", len(all), cut)
	}
	heal()
	connect(t, n).asks(t)
}

func TestConnectionsAreReset(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n := w.Nodes()[0]
	before := connect(t, n)
	before.asks(t)
	heal := inject(t, w, "reset", 1)
	if err := before.ask(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a request while connections are reset: %v, want a reset", err)
	}
	if _, err := net.DialTimeout("tcp", n.Address(), 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want that it is refused", err)
	}
	heal()
	connect(t, n).asks(t)
}

func TestSlowLinkIsSlow(t *testing.T) {
	const requests = 60
	w := start(t, Options{Kind: SQLite})
	c := connect(t, w.Nodes()[0])
	ask := func() time.Duration {
		began := time.Now()
		for range requests {
			c.asks(t)
		}
		return time.Since(began)
	}
	fast := ask()
	heal := inject(t, w, "slow", 1)
	// Each request takes two packets one way and as many the other; with no loss at all the bound would be 3 s.
	if slow := ask(); slow < time.Second || slow < 5*fast {
		t.Errorf("%d requests took %v over a slow link and %v over a whole one", requests, slow, fast)
	}
	heal()
	// What was lost last is sent again by a timer that has grown.
	connect(t, w.Nodes()[0]).asks(t)
	c = connect(t, w.Nodes()[0])
	if healed := ask(); healed > time.Second {
		t.Errorf("%d requests took %v over a link that was healed", requests, healed)
	}
}

func TestNodesWorkWhileTheyAreCutOff(t *testing.T) {
	for kind, name := range map[Kind]string{Postgres: "routes-cut", NATS: "nats-cut"} {
		w := start(t, Options{Kind: kind})
		c := newClient(t, w)
		fault := w.Faults()[slices.IndexFunc(w.Faults(), func(f Fault) bool { return f.Name == name })]
		ports := w.ports(fault.targets[0])
		reach(t, ports, true)
		heal := inject(t, w, name, 1)
		reach(t, ports, false)
		for i, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			if got := c.history(t, n); got != i+1 {
				t.Errorf("%s: the history through %s has %d messages, want %d", name, n.Name, got, i+1)
			}
		}
		heal()
		reach(t, ports, true)
		c.sends(t, w.Nodes()[0], ackMax)
	}
}

func TestDatabaseCutOff(t *testing.T) {
	w := start(t, Options{Kind: Postgres})
	c, ports := newClient(t, w), w.ports("link to postgres")
	n := w.Nodes()[0]
	c.sends(t, n, ackMax)
	heal := inject(t, w, "database-cut", 1)
	reach(t, ports, false)
	if status, answer, took := c.send(t, n, 15*time.Second); status != http.StatusServiceUnavailable {
		t.Errorf("a send without a database was answered %d %s after %v, want %d", status, answer, took, http.StatusServiceUnavailable)
	}
	heal()
	reach(t, ports, true)
	c.sends(t, n, ackMax)
}

// reach fails the test unless all ports take connections, or none does.
func reach(t *testing.T, ports []int, want bool) {
	t.Helper()
	for _, port := range ports {
		conn, err := net.DialTimeout("tcp", loopback(port), 500*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != want {
			t.Errorf("port %d: %v, want that it can be reached: %t", port, err, want)
		}
	}
}
