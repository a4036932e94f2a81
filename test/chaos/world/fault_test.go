package world

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// two is a world of two nodes that do not run, and harms that leave a note.
func two(harmed map[string]bool) (*World, Fault) {
	w, err := newWorld(Options{Kind: Postgres})
	if err != nil {
		panic(err) // The options are right.
	}
	note := func(_ context.Context, _ *rand.Rand, target string) (func(context.Context) error, error) {
		harmed[target] = true
		return func(context.Context) error {
			delete(harmed, target)
			return nil
		}, nil
	}
	return w, Fault{Name: "note", w: w, targets: []string{"node1", "node2"}, inject: note}
}

func TestTargetIsHarmedOnceAtATime(t *testing.T) {
	harmed := map[string]bool{}
	_, f := two(harmed)
	r := rand.New(rand.NewPCG(1, 1))
	first, err := f.Inject(t.Context(), r)
	if err != nil || len(harmed) != 1 {
		t.Fatalf("Inject = %v, and %v are harmed", err, harmed)
	}
	if _, err := f.Inject(t.Context(), r); err != nil || len(harmed) != 2 {
		t.Fatalf("the second Inject = %v, and %v are harmed", err, harmed)
	}
	if _, err := f.Inject(t.Context(), r); !errors.Is(err, ErrBusy) {
		t.Errorf("the third Inject = %v, want %v", err, ErrBusy)
	}
	if err := first(t.Context()); err != nil || len(harmed) != 1 {
		t.Errorf("heal = %v, and %v are harmed", err, harmed)
	}
	if _, err := f.Inject(t.Context(), r); err != nil || len(harmed) != 2 {
		t.Errorf("Inject after a heal = %v, and %v are harmed", err, harmed)
	}
}

func TestFailedInjectionLeavesTheTargetFree(t *testing.T) {
	w, f := two(nil)
	cause := errors.New("no")
	f.inject = func(context.Context, *rand.Rand, string) (func(context.Context) error, error) { return nil, cause }
	for range 3 {
		if _, err := f.Inject(t.Context(), rand.New(rand.NewPCG(1, 1))); !errors.Is(err, cause) {
			t.Errorf("Inject = %v, want %v", err, cause)
		}
	}
	if !w.free("", "node1", "node2") {
		t.Error("a target is not free")
	}
}

func TestSeedDecides(t *testing.T) {
	sequence := func(seed uint64) (targets []string) {
		harmed := map[string]bool{}
		_, f := two(harmed)
		r := rand.New(rand.NewPCG(seed, 0))
		for range 20 {
			heal, err := f.Inject(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for target := range harmed {
				targets = append(targets, target)
			}
			if err := heal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return targets
	}
	one, again, other := strings.Join(sequence(1), " "), strings.Join(sequence(1), " "), strings.Join(sequence(2), " ")
	if one != again || one == other {
		t.Errorf("seed 1 chose %s, then %s; seed 2 chose %s", one, again, other)
	}
}

func TestImpossibleWorldsAreRefused(t *testing.T) {
	for _, o := range []Options{{Kind: SQLite, Nodes: 2}, {Kind: "mysql"}, {Kind: Postgres, Nodes: -1}, {Kind: Postgres, DiskMaxBytes: 1 << 20}} {
		o.Dir = t.TempDir()
		if w, err := Start(t.Context(), o); err == nil {
			t.Errorf("Start(%+v) = nil, want an error", o)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPortIsOfNoClient(t *testing.T) {
	for range 10 {
		port, err := freePort()
		if err != nil || port < portMin || port > portMax {
			t.Fatalf("freePort = %d, %v, want one from %d to %d", port, err, portMin, portMax)
		}
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
	}
}
