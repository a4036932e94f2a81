//go:build chaos

package world

import (
	"net/http"
	"testing"
	"time"
)

func TestPostgresComesBack(t *testing.T) {
	w := start(t, Options{Kind: Postgres})
	c, acked := newClient(t, w), 0
	for _, name := range []string{"postgres-kill", "postgres-crash", "postgres-restart"} {
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			acked++
		}
		before, err := w.postgres.primary.PID()
		if err != nil {
			t.Fatal(err)
		}
		heal := inject(t, w, name, 1)
		if w.postgres.primary.Running() {
			t.Errorf("%s: PostgreSQL runs", name)
		}
		for _, n := range w.Nodes() {
			if status, answer, took := c.send(t, n, 5*time.Second); status != http.StatusServiceUnavailable {
				t.Errorf("%s: a send to %s was answered %d %s after %v, want %d", name, n.Name, status, answer, took, http.StatusServiceUnavailable)
			}
		}
		heal()
		if after, err := w.postgres.primary.PID(); err != nil || after == before {
			t.Errorf("%s: the postmaster is %d, %v, want another than before", name, after, err)
		}
		for _, n := range w.Nodes() {
			if got := c.history(t, n); got != acked {
				t.Errorf("%s: the history through %s has %d messages, want %d", name, n.Name, got, acked)
			}
		}
	}
	for _, n := range w.Nodes() {
		c.sends(t, n, ackMax)
	}
}

func TestSessionsAreTerminated(t *testing.T) {
	w := start(t, Options{Kind: Postgres})
	c := newClient(t, w)
	const count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parley' AND pid = ANY($1)"
	var pids []int32
	if err := w.postgres.query(t.Context(), "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'parley'", &pids); err != nil {
		t.Fatal(err)
	}
	heal := inject(t, w, "postgres-sessions", 1)
	err := until(t.Context(), "the sessions' end", func() (bool, error) {
		var left int
		err := w.postgres.query(t.Context(), count, &left, pids)
		return left == 0, err
	})
	if err != nil || len(pids) == 0 {
		t.Errorf("%d sessions: %v", len(pids), err)
	}
	heal()
	for _, n := range w.Nodes() {
		c.sends(t, n, ackMax)
	}
}

func TestFailOverKeepsWhatWasAcked(t *testing.T) {
	w := start(t, Options{Kind: PostgresReplica})
	c, acked := newClient(t, w), 0
	for i := range 2 { // There, and back.
		for _, n := range w.Nodes() {
			c.sends(t, n, ackMax)
			acked++
		}
		primary := w.postgres.primary
		heal := inject(t, w, "fail-over", uint64(i))
		if w.postgres.primary == primary || primary.Running() {
			t.Error("the primary is the one that was ended")
		}
		heal()
		for _, n := range w.Nodes() {
			if got := c.history(t, n); got != acked {
				t.Errorf("after fail-over %d the history through %s has %d messages, want %d", i+1, n.Name, got, acked)
			}
		}
	}
	for _, n := range w.Nodes() {
		c.sends(t, n, ackMax)
	}
}

func TestNoAckWithoutTheStandby(t *testing.T) {
	w := start(t, Options{Kind: PostgresReplica})
	n, c := w.Nodes()[0], newClient(t, w)
	c.sends(t, n, ackMax)
	heal := inject(t, w, "standby-freeze", 1)
	if status, answer, _ := c.send(t, n, 2*time.Second); status == http.StatusCreated {
		t.Errorf("a send was acknowledged that the standby cannot have: %s", answer)
	}
	heal()
	c.sends(t, n, 15*time.Second)
	// Behind a restart the standby has to be back too.
	inject(t, w, "postgres-kill", 1)()
	c.sends(t, n, ackMax)
}
