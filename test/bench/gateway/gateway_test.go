package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/test/bench"
)

// TestSmallRun runs every scenario, small, on the servers of this module: what it holds is that each message comes exactly once and in
// order, and that nothing is left out of the table. It holds no figure. Node's server and Centrifuge need what only make bench-gateway fetches.
func TestSmallRun(t *testing.T) {
	dir := t.TempDir()
	r := &rig{dir: dir, sources: "..", parley: filepath.Join(dir, "parley")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", r.parley, "parley/cmd/parley").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ours := []string{gateway, floor, batchFloor, whole}
	if err := r.build(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	z := sizes{
		span: 100 * time.Millisecond, rounds: 1, connections: 20, rooms: []int{5, 20}, windows: []int{1, 8}, messageBytes: 200,
		latencyRoom: 5, latencyPerSec: 500, idle: 20, idleRoom: 5, idleRooms: 3, idleSettle: 100 * time.Millisecond,
		stalled: 10, stalledBytes: []int{8000}, stalledMax: 300 * time.Millisecond,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	all, err := r.measureAll(ctx, ours, []string{"saturated", "latency", "idle", "slow"}, z)
	if err != nil {
		t.Fatal(err)
	}
	all.pickWindows(z)
	text := all.markdown(z, nil)
	for _, sc := range scenarios {
		for _, c := range contenders {
			for _, variant := range sc.variants(z) {
				measured := false
				for k := range all.values {
					measured = measured || k.scenario == sc.name && k.who == c.word && k.variant == variant
				}
				if should := slices.Contains(sc.who, c.word) && slices.Contains(ours, c.word); measured != should {
					t.Errorf("%s of %s at %d is measured: %t, want %t", sc.name, c.name, variant, measured, should)
				}
			}
		}
	}
	if rows := strings.Count(text, "\n| "); rows < 20 || strings.Contains(text, "NaN ×") {
		t.Errorf("the table has %d rows or figures that are none:\n%s", rows, text)
	}
}

func TestTextTellsNumberAndTime(t *testing.T) {
	now := time.Now()
	for _, size := range []int{headBytes, 200, 8000} {
		text := appendText(nil, 42, now, size)
		number, sent, ok := parseText(text)
		if len(text) != size || number != 42 || sent != now.UnixNano() || !ok {
			t.Errorf("parseText(%.40q of %d bytes) = %d, %d, %t, want 42, %d", text, len(text), number, sent, ok, now.UnixNano())
		}
	}
	if _, _, ok := parseText([]byte("0000000001 17")); ok {
		t.Error("parseText takes a text that was cut")
	}
}

func TestWires(t *testing.T) {
	for _, c := range []struct {
		wire   wire
		packet string
		texts  string
		answer string
		fails  bool
	}{
		{socketIO{}, `42["message","one"]`, `one"]`, "", false},
		{socketIO{}, "2", "", "3", false},
		{socketIO{}, "41", "", "", true},
		{parleyWire{}, `42["new-message",{"id":"m","content":"one"}]`, `one"}]`, "", false},
		{parleyWire{}, `431[{"ok":true}]`, "", "", false},
		{parleyWire{}, `431[{"ok":false}]`, "", "", true},
		{centrifugeWire{}, `{"push":{"channel":"r1","pub":{"data":"one"}}}` + "\n" + `{"push":{"channel":"r1","pub":{"data":"two"}}}`, `one"}}}|two"}}}`, "", false},
		{centrifugeWire{}, "{}", "", "{}", false},
		{centrifugeWire{}, `{"push":{"disconnect":{"code":1}}}`, "", "", true},
	} {
		var texts []string
		answer, err := c.wire.take([]byte(c.packet), func(text []byte) { texts = append(texts, string(text)) })
		if got := strings.Join(texts, "|"); got != c.texts || answer != c.answer || (err != nil) != c.fails {
			t.Errorf("take(%s) = %q, answer %q, %v, want %q, answer %q, an error: %t", c.packet, got, answer, err, c.texts, c.answer, c.fails)
		}
	}
}

func TestAClientNoticesWhatIsWrong(t *testing.T) {
	for _, numbers := range [][]uint64{{1}, {0, 2}, {0, 0}, {0, 1, 0}} {
		c := &client{tally: &tally{wake: make(chan struct{}, 1)}}
		for _, n := range numbers {
			c.deliver(appendText(nil, n, time.Now(), 200))
		}
		if c.tally.err() == nil {
			t.Errorf("messages %d in this order are no error", numbers)
		}
	}
}

func TestTheBestWindowIsPicked(t *testing.T) {
	r := newResults()
	k := key{scenario: "saturated", variant: 100, who: gateway}
	for window, value := range map[int]float64{1: 100, 8: 500, 64: 510} {
		k.figure = atWindow(perCPUSecond, window)
		r.values[k] = []float64{value, value - 1, value + 1}
	}
	r.pickWindows(sizes{windows: []int{1, 8, 64}})
	k.figure = ""
	if got := r.windows[k]; got != 8 {
		t.Errorf("the window is %d, want 8: 64 is hardly better", got)
	}
	k.figure = perCPUSecond
	if got := r.median(k); got != 500 {
		t.Errorf("the figure is %g, want that of window 8", got)
	}
}

func TestBarsAreHeld(t *testing.T) {
	for _, c := range []struct {
		bar   bar
		ratio float64
		met   bool
	}{{bar{least: 6}, 6, true}, {bar{least: 6}, 5.9, false}, {bar{most: 0.5}, 0.5, true}, {bar{most: 0.5}, 0.6, false}} {
		if got := c.bar.met(c.ratio) == "met"; got != c.met {
			t.Errorf("%s at %g is met: %t, want %t", c.bar, c.ratio, got, c.met)
		}
	}
	if got := bench.Median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("Median = %g, want 2", got)
	}
}
