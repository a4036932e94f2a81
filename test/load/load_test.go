package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSmallRun runs every scenario, small, against the real server on both databases: what it holds is that each sends,
// that each delivery comes exactly once, and that nothing is left out of the table. It holds no figure.
func TestSmallRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "parley")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "parley/cmd/parley")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	z := sizes{
		span: 100 * time.Millisecond, inFlight: []int{1, 4},
		rooms: []rooms{{2, 3, 2}}, latency: rooms{1, 5, 2}, latencyPerSec: 100, offline: []int{2, 20},
		idle: 20, idlePerGroup: 5, idleGroupsEach: 2, idleSettle: 100 * time.Millisecond,
	}
	for word := range databaseNames {
		for _, sc := range scenarios {
			t.Run(word+"/"+sc.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				rows := 0
				add := func(measure, value, _ string) {
					rows++
					if strings.HasPrefix(value, "0/s") {
						t.Errorf("%s = %s", measure, value)
					}
				}
				if err := runOne(ctx, sc, binary, word, nil, z, add); err != nil {
					t.Fatal(err)
				}
				if rows == 0 {
					t.Error("no row was added")
				}
			})
		}
	}
}

func TestReportIsATable(t *testing.T) {
	r := newReport([]string{"SQLite", "PostgreSQL"})
	r.add("SQLite", "sends", "5", "≥ 4")
	r.add("SQLite", "memory", "7", "")
	r.add("PostgreSQL", "sends", "6", "≥ 4")
	want := "| measure | SQLite | PostgreSQL | bar |\n|---|---|---|---|\n| sends | 5 | 6 | ≥ 4 |\n| memory | 7 | – |  |\n\n"
	if got := r.markdown(); got != want {
		t.Errorf("markdown = %q, want %q", got, want)
	}
}

func TestSendersAreSpread(t *testing.T) {
	r := rooms{count: 2, size: 3, senders: 5}
	c := &crowd{}
	var conversations []string
	for i := range r.count * r.size {
		c.clients = append(c.clients, &client{posted: i})
		conversations = append(conversations, fmt.Sprint(i/r.size))
	}
	senders, targets := r.sending(c, conversations)
	var got []int
	for _, s := range senders {
		got = append(got, s.posted)
	}
	if want := []int{0, 3, 1, 4, 2}; !slices.Equal(got, want) || !slices.Equal(targets, []string{"0", "1", "0", "1", "0"}) {
		t.Errorf("sending = clients %d for %q, want %d", got, targets, want)
	}
}
