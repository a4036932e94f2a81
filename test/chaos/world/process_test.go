//go:build chaos

package world

import (
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
