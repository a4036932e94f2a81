package engineio

import (
	"strings"
	"testing"
)

// What is taken for a client that does not read is bounded by us: the kernel alone would take megabytes.
func TestUnsentIsBounded(t *testing.T) {
	ts := serve(t, Options{QueueBytesMax: 64 << 10}, nil)
	ts.dial("")
	conn := ts.session(0).conn
	taken, frame := 0, textFrame(strings.Repeat("x", 8<<10))
	for conn.Send(frame) == nil {
		if taken += 8 << 10; taken > 512<<10 {
			t.Fatalf("%d bytes were taken for a client that reads none", taken)
		}
		eventually(t, "what was sent is tried", func() bool {
			conn.mu.Lock()
			defer conn.mu.Unlock()
			return conn.slow || len(conn.queue) == 0
		})
	}
	if n := ts.Stats().SlowCloses; n != 1 {
		t.Errorf("%d slow closes, want 1", n)
	}
}
