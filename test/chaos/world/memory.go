package world

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A memoryGroup is a control group that limits the memory of a node, in the first version of control groups or the second.
type memoryGroup struct {
	dir     string
	unified bool
}

// Where control groups are mounted: the folder of the only hierarchy, or of the one for memory.
const (
	unifiedGroups = "/sys/fs/cgroup"
	memoryGroups  = "/sys/fs/cgroup/memory"
	groupPrefix   = "parley-chaos-"
)

// newMemoryGroup makes a group for name, and removes those of processes that are gone. Linux, "Control Group v2", "Memory", and "Memory
// Resource Controller" for the first version.
func newMemoryGroup(name string, maxBytes int64) (*memoryGroup, error) {
	g := &memoryGroup{}
	parent := memoryGroups
	limits := [][2]string{{"memory.limit_in_bytes", strconv.FormatInt(maxBytes, 10)}, {"memory.memsw.limit_in_bytes", strconv.FormatInt(maxBytes, 10)}}
	if _, err := os.Stat(parent); err != nil {
		g.unified, parent = true, unifiedGroups
		limits = [][2]string{{"memory.max", strconv.FormatInt(maxBytes, 10)}, {"memory.swap.max", "0"}}
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, fmt.Errorf("memory groups: %w", err)
		}
	}
	if err := removeStale(parent); err != nil {
		return nil, err
	}
	g.dir = filepath.Join(parent, fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), name))
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("memory group: %w", err)
	}
	for i, limit := range limits {
		err := os.WriteFile(filepath.Join(g.dir, limit[0]), []byte(limit[1]), 0)
		if err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) { // A kernel without swap has no second limit.
			return nil, errors.Join(fmt.Errorf("memory group: %w", err), g.remove())
		}
	}
	return g, nil
}

// removeStale removes the groups of processes that are gone.
func removeStale(parent string) error {
	groups, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range groups {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		if n, err := strconv.Atoi(pid); err != nil || !errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			continue
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("stale memory group: %w", err)
		}
	}
	return nil
}

// command has a program run in the group from its first instruction on.
func (g *memoryGroup) command(args []string) []string {
	return append([]string{"/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, g.dir}, args...)
}

// kills is how many processes of the group the kernel has ended because it was full.
func (g *memoryGroup) kills() (int, error) {
	file := "memory.oom_control"
	if g.unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if value, found := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); found {
			return strconv.Atoi(string(value))
		}
	}
	return 0, fmt.Errorf("%s/%s has no oom_kill", g.dir, file)
}

// remove removes the group, whose processes have ended.
func (g *memoryGroup) remove() error { return os.Remove(g.dir) }
