//go:build chaos

package world

import "testing"

func TestNodesWorkWithoutNATS(t *testing.T) {
	w := start(t, Options{Kind: NATS})
	c, sent := newClient(t, w), 0
	for _, name := range []string{"nats-kill", "nats-freeze"} {
		before := w.nats.process.PID
		heal := inject(t, w, name, 1)
		if name == "nats-kill" {
			reach(t, w.ports("link to nats"), false)
		}
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			sent++
			for _, reader := range w.Nodes() {
				if got := c.history(t, reader); got != sent {
					t.Errorf("%s: the history through %s has %d messages, want %d", name, reader.Name, got, sent)
				}
			}
		}
		heal()
		if killed := w.nats.process.PID != before; killed != (name == "nats-kill") {
			t.Errorf("%s: NATS is another process: %t", name, killed)
		}
		reach(t, w.ports("link to nats"), true)
		c.sends(t, w.Nodes()[0], ackMax)
		sent++
	}
}
