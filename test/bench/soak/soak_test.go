package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/test/bench"
)

// TestShortRun soaks the real server for moments, with people who come and go in every way.
func TestShortRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "parley")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "parley/cmd/parley").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o := options{binary: binary, clients: 40, rate: 200, seed: uint64(time.Now().UnixNano()), duration: 6 * time.Second, every: time.Second,
		stayMin: 200 * time.Millisecond, stayMax: 2 * time.Second, awayMax: 300 * time.Millisecond, longAwayMax: time.Second,
		settings: []string{"PARLEY_GATEWAY_PING_INTERVAL=1s", "PARLEY_GATEWAY_PING_TIMEOUT=1s"}}
	text, err := run(ctx, o, bench.Cores{}, "go test")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, kind := range []string{"websocket", "polling, then websocket", cleanly, engineEnd, byFIN, byRST, frozen} {
		if strings.Contains(text, kind+" 0;") {
			t.Errorf("nobody: %s\n%s", kind, text)
		}
	}
}

func TestAViewSeesWhatIsWrong(t *testing.T) {
	type message struct {
		seq    int64
		sender int
		number int64
	}
	for _, c := range []struct {
		messages []message
		want     error
	}{
		{[]message{{1, 7, 1}, {2, 8, 1}, {3, 7, 2}}, nil},
		{[]message{{1, 7, 1}, {3, 7, 2}}, errLost},
		{[]message{{1, 7, 1}, {2, 7, 2}, {2, 7, 2}}, errTwice},
		{[]message{{1, 7, 1}, {2, 7, 1}}, errOrder},
		{[]message{{1, 7, 1}, {2, 7, 3}}, errOrder},
	} {
		v := &view{from: map[int]int64{}}
		var got error
		for _, m := range c.messages {
			if got = v.see(m.seq, m.sender, m.number); got != nil {
				break
			}
		}
		if !errors.Is(got, c.want) {
			t.Errorf("see of %v = %v, want %v", c.messages, got, c.want)
		}
	}
	v := &view{last: 5, repeatable: 4, from: map[int]int64{7: 5}}
	if err := v.see(4, 7, 4); err != nil {
		t.Errorf("a message that had come before the break is refused: %v", err)
	}
	if err := v.see(5, 7, 5); !errors.Is(err, errTwice) {
		t.Errorf("a message that came on this connection comes again: %v, want %v", err, errTwice)
	}
}

func TestGrowthIsSeen(t *testing.T) {
	steady := sample{goroutines: 100, descriptors: 100, resident: 100 * mebi, heap: 50 * mebi}
	run := func(change func(i int, s *sample)) *record {
		r := &record{start: sample{goroutines: 30, descriptors: 20, heap: 10 * mebi}}
		r.end = r.start
		for i := range 20 {
			s := steady
			change(i, &s)
			r.samples = append(r.samples, s)
		}
		return r
	}
	if err := run(func(int, *sample) {}).growth(); err != nil {
		t.Errorf("nothing grew: %v", err)
	}
	for name, change := range map[string]func(i int, s *sample){
		"goroutines":  func(i int, s *sample) { s.goroutines += float64(5 * i) },
		"descriptors": func(i int, s *sample) { s.descriptors += float64(5 * i) },
		"resident":    func(i int, s *sample) { s.resident += float64(5*i) * mebi },
		"heap":        func(i int, s *sample) { s.heap += float64(3*i) * mebi },
	} {
		if err := run(change).growth(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s grew: growth = %v", name, err)
		}
	}
	r := run(func(int, *sample) {})
	r.end.goroutines = 50
	if err := r.growth(); err == nil {
		t.Error("goroutines are left and growth is nil")
	}
	if err := (&record{}).growth(); err == nil {
		t.Error("growth of no samples = nil, want an error")
	}
}
