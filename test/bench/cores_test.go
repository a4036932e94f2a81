package bench

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPinRunning(t *testing.T) {
	p, err := Command{Args: []string{"sleep", "60"}, Log: filepath.Join(t.TempDir(), "log"), StopMax: time.Second}.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(p.PID, &before); err != nil {
		t.Fatal(err)
	}
	last := 0
	for core := range 1024 {
		if before.IsSet(core) {
			last = core
		}
	}
	if err := PinRunning(p.PID, []int{last}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedGetaffinity(p.PID, &after); err != nil {
		t.Fatal(err)
	}
	if after.Count() != 1 || !after.IsSet(last) {
		t.Errorf("pinned to core %d the process may use %d cores, that one among them: %t", last, after.Count(), after.IsSet(last))
	}
}
