//go:build chaos

package world

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestSlowSyncDelaysTheAck(t *testing.T) {
	for _, kind := range []Kind{SQLite, Postgres} {
		w := start(t, Options{Kind: kind})
		c := newClient(t, w)
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
		}
		heal := inject(t, w, "sync-slow", 1)
		for range 3 {
			for _, n := range w.Nodes() {
				if status, answer, took := c.send(t, n, 10*time.Second); status != http.StatusCreated || took < slowSync {
					t.Errorf("%s: with slow syncs a send to %s was answered %d %s after %v, want %d after %v at least", kind, n.Name, status, answer, took,
						http.StatusCreated, slowSync)
				}
			}
		}
		heal()
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			if status, answer, took := c.send(t, n, 10*time.Second); status != http.StatusCreated || took >= slowSync {
				t.Errorf("%s: after the heal a send to %s was answered %d %s after %v", kind, n.Name, status, answer, took)
			}
		}
	}
}

func TestFailedSyncIsNoAck(t *testing.T) {
	for _, kind := range []Kind{SQLite, Postgres} {
		w := start(t, Options{Kind: kind})
		c, acked := newClient(t, w), 0
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			acked++
		}
		heal := inject(t, w, "sync-error", 1)
		for range 3 {
			for _, n := range w.Nodes() {
				if status, answer, _ := c.send(t, n, 2*time.Second); status == http.StatusCreated {
					t.Errorf("%s: %s acknowledged what could not be synced: %s", kind, n.Name, answer)
				}
			}
		}
		heal()
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			acked++
			if got := c.history(t, n); got < acked {
				t.Errorf("%s: the history through %s has %d messages, of at least %d", kind, n.Name, got, acked)
			}
		}
	}
}

func TestFullDiskRefusesSends(t *testing.T) {
	w := start(t, Options{Kind: SQLite, DiskMaxBytes: 64 << 20})
	n, c := w.Nodes()[0], newClient(t, w)
	for _, name := range []string{"write-full", "disk-full"} {
		before := c.history(t, n)
		c.sends(t, n, ackMax)
		process := n.PID()
		heal := inject(t, w, name, 1)
		accepted := 1
		// A log that starts over finds room in its own file for a while.
		for {
			status, answer, took := c.send(t, n, 5*time.Second)
			if status == http.StatusCreated && name == "disk-full" && accepted < 90 {
				accepted++
				continue
			}
			if status != http.StatusInsufficientStorage || !strings.Contains(answer, `"storage_full"`) {
				t.Errorf("%s: a send was answered %d %s after %v, want %d storage_full", name, status, answer, took, http.StatusInsufficientStorage)
			}
			break
		}
		if got := c.history(t, n); got != before+accepted {
			t.Errorf("%s: the history has %d messages, want %d", name, got, before+accepted)
		}
		heal()
		c.sends(t, n, ackMax)
		if n.PID() != process {
			t.Errorf("%s: the node needed a restart", name)
		}
	}
}

func TestTablesWithoutRoomRefuseSends(t *testing.T) {
	w := start(t, Options{Kind: Postgres})
	n, c := w.Nodes()[0], newClient(t, w)
	postmaster, err := w.postgres.primary.PID()
	if err != nil {
		t.Fatal(err)
	}
	c.sends(t, n, ackMax)
	heal := inject(t, w, "tables-full", 1)
	// A page that has room takes some more.
	const sendsMax = 500
	refused := false
	for i := 0; i < sendsMax && !refused; i++ {
		status, answer, _ := c.send(t, n, 5*time.Second)
		refused = status == http.StatusInsufficientStorage && strings.Contains(answer, `"storage_full"`)
		if !refused && status != http.StatusCreated {
			t.Fatalf("a send was answered %d %s, want %d, or %d storage_full", status, answer, http.StatusCreated, http.StatusInsufficientStorage)
		}
	}
	if !refused {
		t.Errorf("%d sends found room", sendsMax)
	}
	if got := c.history(t, n); got == 0 {
		t.Error("the history cannot be read")
	}
	heal()
	c.sends(t, n, ackMax)
	if after, err := w.postgres.primary.PID(); err != nil || after != postmaster {
		t.Errorf("the postmaster was %d and is %d, %v: it needed a restart", postmaster, after, err)
	}
}

// PostgreSQL ends itself when it cannot write its log, and its nodes have to get over that.
func TestFullDiskOfPostgres(t *testing.T) {
	w := start(t, Options{Kind: Postgres})
	n, c := w.Nodes()[0], newClient(t, w)
	c.sends(t, n, ackMax)
	heal := inject(t, w, "write-full", 1)
	if status, answer, took := c.send(t, n, 5*time.Second); status == http.StatusCreated {
		t.Errorf("a send was acknowledged after %v: %s", took, answer)
	}
	heal()
	c.sends(t, n, ackMax)
	if got := c.history(t, n); got < 2 {
		t.Errorf("the history has %d messages, want 2 at least", got)
	}
}
