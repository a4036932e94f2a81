package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/test/bench"
)

// settledLooks is how many looks in a row find processes traced before we rely on it: strace first makes a thread its own, which is what can
// be seen, and stops it at its system calls a moment later.
const settledLooks = 3

// attachTriesMax bounds how often strace is started for what is not traced yet.
const attachTriesMax = 10

// detachMax bounds how long strace may take to let go of its processes.
const detachMax = 20 * time.Second

// tracing tells why no system call can be harmed here; nil: it can.
func tracing() error {
	if _, err := exec.LookPath("strace"); err != nil {
		return errors.New("it needs strace")
	}
	if os.Geteuid() != 0 {
		return errors.New("it needs root, to trace processes of others")
	}
	return nil
}

// A tracer harms system calls of processes, by strace(1), "Tampering".
type tracer struct{ straces []*bench.Process }

// attach begins to trace processes, and returns when each of them is traced with all its threads, as are all that they start. pids
// lists them, the parent of the others first. args say what is traced and harmed.
func (w *World) attach(ctx context.Context, pids func() ([]int, error), args ...string) (_ *tracer, err error) {
	t := &tracer{}
	defer func() {
		if err != nil {
			t.detach()
		}
	}()
	all, err := pids()
	if err != nil {
		return nil, err
	}
	// Whom the parent starts from now on is traced from its beginning. What it started before is found then.
	next := all[:1]
	for tries := 0; len(next) > 0; tries++ {
		if tries == attachTriesMax {
			return nil, fmt.Errorf("strace ended: %s", t.straces[tries-1].LogTail())
		}
		command := []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none"}
		command = append(command, args...)
		for _, pid := range next {
			command = append(command, "-p", strconv.Itoa(pid))
		}
		s, err := bench.Command{Args: command, Dir: w.dir, Log: filepath.Join(w.dir, "strace.log"), StopMax: detachMax}.Start()
		if err != nil {
			return nil, err
		}
		t.straces = append(t.straces, s)
		looks := 0
		err = until(ctx, "strace", func() (bool, error) {
			select {
			case <-s.Exited(): // One of the processes may have ended before it was traced. Those that are left are tried again.
				return true, nil
			default:
			}
			if looks++; slices.ContainsFunc(next, func(pid int) bool { return !traced(pid) }) {
				looks = 0
			}
			return looks == settledLooks, nil
		})
		if err != nil {
			return nil, err
		}
		if all, err = pids(); err != nil {
			return nil, err
		}
		next = nil
		for _, pid := range all {
			if !traced(pid) {
				next = append(next, pid)
			}
		}
	}
	return t, nil
}

// detach ends the harm and lets the processes go on.
func (t *tracer) detach() {
	for _, s := range t.straces {
		s.Stop()
	}
}

// traced reports whether all threads of a process are traced, or it has ended.
func traced(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		panic(err) // The pattern is well formed.
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // It has ended.
		}
		if bytes.Contains(text, []byte("\nTracerPid:\t0\n")) && !bytes.Contains(text, []byte("\nState:\tZ")) {
			return false
		}
	}
	return true
}

// on limits a trace to calls that concern one of paths.
func on(paths ...string) (args []string) {
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	return args
}

// harming traces calls and does harm to each of them.
func harming(harm string, calls ...string) []string {
	names := strings.Join(calls, ",")
	return []string{"-e", "trace=" + names, "-e", "inject=" + names + ":" + harm}
}
