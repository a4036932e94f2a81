//go:build chaos

package world

import (
	"context"
	"sync"
	"testing"
	"time"
)

// ackMax is the promise of DESIGN.md, section 7: sends are acknowledged again 2 s after a restart.
const ackMax = 2 * time.Second

func TestKilledNodeComesBack(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n, c := w.Nodes()[0], newClient(t, w)
	for i, name := range []string{"kill", "storm", "restart"} {
		c.sends(t, n, ackMax)
		before := n.PID()
		heal := inject(t, w, name, uint64(i))
		if n.Alive() {
			t.Errorf("%s: the node is alive", name)
		}
		if status, answer, _ := c.send(t, n, time.Second); status != 0 {
			t.Errorf("%s: a send was answered: %d %s", name, status, answer)
		}
		heal()
		if n.PID() == before {
			t.Errorf("%s: the process after the heal is the one before it", name)
		}
		if got, want := c.history(t, n), i+1; got != want {
			t.Errorf("%s: the history has %d messages, want %d", name, got, want)
		}
	}
	c.sends(t, n, ackMax)
}

func TestNodeIsStartedWhileItsLinkIsCut(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n, c := w.Nodes()[0], newClient(t, w)
	healLink, healNode := inject(t, w, "cut", 1), inject(t, w, "kill", 1)
	healNode()
	if !n.Alive() {
		t.Error("the node was not started")
	}
	healLink()
	c.sends(t, n, ackMax)
}

func TestFrozenNodeAnswersNobody(t *testing.T) {
	w := start(t, Options{Kind: SQLite})
	n, c := w.Nodes()[0], newClient(t, w)
	heal := inject(t, w, "freeze", 1)
	if status, answer, _ := c.send(t, n, time.Second); status != 0 {
		t.Errorf("a frozen node answered %d %s", status, answer)
	}
	if !n.Alive() {
		t.Error("a frozen node counts as ended")
	}
	heal()
	c.sends(t, n, ackMax)
}

// A node that is frozen in the middle of a transaction holds locks in the database, and must not hold them for long.
func TestOthersCommitWhileANodeIsFrozen(t *testing.T) {
	const times, senders = 5, 8
	w := start(t, Options{Kind: Postgres})
	frozen, other := w.Nodes()[0], w.Nodes()[1]
	c := newClient(t, w)
	for range times {
		ctx, stop := context.WithCancel(t.Context())
		var sending sync.WaitGroup
		for range senders {
			sending.Go(func() {
				for ctx.Err() == nil {
					_, _, _ = c.send(t, frozen, time.Second) // It keeps the node in the middle of transactions; what comes of it is of no interest.
				}
			})
		}
		for range 20 {
			c.sends(t, other, ackMax)
		}
		if err := frozen.Pause(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.sends(t, other, 10*time.Second)
		if took := time.Since(began); took > ackMax {
			t.Errorf("%v after %s was frozen, %s commits again; want %v at most", took, frozen.Name, other.Name, ackMax)
		}
		stop()
		if err := frozen.Continue(); err != nil {
			t.Fatal(err)
		}
		sending.Wait()
	}
	c.sends(t, frozen, ackMax)
}
