//go:build chaos

package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestMemoryIsLimited(t *testing.T) {
	g, err := newMemoryGroup("test", 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	// tail keeps what it may have to print.
	args := g.command([]string{"sh", "-c", "head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null"})
	if err := exec.Command(args[0], args[1:]...).Run(); err == nil {
		t.Error("90 MB were held in a group of 32 MiB")
	}
	if n, err := g.kills(); err != nil || n == 0 {
		t.Errorf("the group counts %d kills, %v, want some", n, err)
	}
	if err := g.remove(); err != nil {
		t.Error(err)
	}
}

func TestGroupsOfTheGoneAreRemoved(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	mine, err := newMemoryGroup("mine", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(filepath.Dir(mine.dir), fmt.Sprintf("%s%d-node1", groupPrefix, ended.Process.Pid))
	if err := os.Mkdir(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	next, err := newMemoryGroup("next", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group of a process that is gone: %v, want that it does not exist", err)
	}
	for _, g := range []*memoryGroup{mine, next} {
		if err := g.remove(); err != nil {
			t.Error(err)
		}
	}
}

func TestNodeRunsInItsMemoryGroup(t *testing.T) {
	w := start(t, Options{Kind: SQLite, MemoryMaxBytes: 512 << 20})
	n := w.Nodes()[0]
	processes, err := os.ReadFile(filepath.Join(n.memory.dir, "cgroup.procs"))
	if err != nil || !strings.Contains("\n"+string(processes), "\n"+strconv.Itoa(n.PID())+"\n") {
		t.Errorf("the group's processes are %q, %v, want %d among them", processes, err, n.PID())
	}
	if kills, err := n.OutOfMemory(); kills != 0 || err != nil {
		t.Errorf("OutOfMemory = %d, %v, want none", kills, err)
	}
	dir := n.memory.dir
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left behind", dir)
	}
}
