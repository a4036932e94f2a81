package main

import (
	"context"
	"fmt"
	"math/rand/v2"
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

func TestHistogramQuantiles(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %s, want 0", got)
	}
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(1) << random.IntN(40)
		d += time.Duration(random.Int64N(int64(d)))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 1} {
		want := all[int(q*float64(len(all)))-1]
		if got := h.quantile(q); float64(got) < 0.96*float64(want) || got > want {
			t.Errorf("quantile(%g) = %s, want at most 4 %% below %s", q, got, want)
		}
	}
}

func TestBucketsAreInOrderWithoutHoles(t *testing.T) {
	for b := range buckets - 8*subBuckets { // the last ones are beyond what an int64 of nanoseconds holds
		if got := bucketOf(lowestOf(b)); got != b {
			t.Fatalf("bucketOf(lowestOf(%d)) = %d", b, got)
		}
		if b > 0 && bucketOf(lowestOf(b)-1) != b-1 {
			t.Fatalf("bucketOf just below bucket %d = %d", b, bucketOf(lowestOf(b)-1))
		}
	}
}

func TestReportTakesItsPlaceInAPage(t *testing.T) {
	inner := beginMark + "\nnew\n" + endMark
	for _, c := range []struct{ page, want string }{
		{"", inner + "\n"},
		{"# Title\n", "# Title\n\n" + inner + "\n"},
		{"# Title\n" + beginMark + "\nold\n" + endMark + "\nmore\n", "# Title\n" + inner + "\nmore\n"},
	} {
		got, err := replaceReport(c.page, "new\n")
		if err != nil || got != c.want {
			t.Errorf("replaceReport(%q) = %q, %v, want %q", c.page, got, err, c.want)
		}
	}
	for _, page := range []string{beginMark, endMark, endMark + beginMark} {
		if got, err := replaceReport(page, "new"); err == nil {
			t.Errorf("replaceReport(%q) = %q, want an error", page, got)
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

func TestGrouped(t *testing.T) {
	for n, want := range map[float64]string{0: "0", -0.2: "0", 999.4: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%g) = %s, want %s", n, got, want)
		}
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
