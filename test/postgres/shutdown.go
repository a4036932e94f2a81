package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Way is how a server is made to end.
type Way int

// The ways. After the last two it recovers from its log when it starts again.
const (
	Fast      Way = iota // its clients are cut off, and all is written (SIGINT)
	Immediate            // nothing is written (SIGQUIT)
	Killed               // as by kill -9 of every process of it
)

// Shutdown ends the server, whose folder and port stay, and returns when no process of it is left.
func (c *Cluster) Shutdown(ctx context.Context, way Way) error {
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	switch way {
	case Fast:
		err = syscall.Kill(pids[0], syscall.SIGINT)
	case Immediate:
		err = syscall.Kill(pids[0], syscall.SIGQUIT)
	case Killed:
		pids, err = c.kill(ctx)
	}
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return wait(ctx, "the server's end", func() bool {
		for _, pid := range pids {
			if state, _ := stat(pid); state != 0 && state != 'Z' {
				return false
			}
		}
		return true
	})
}

// kill ends all processes. The postmaster is stopped first, lest it see its children die and start others.
func (c *Cluster) kill(ctx context.Context) ([]int, error) {
	postmaster, err := c.PID()
	if err != nil {
		return nil, err
	}
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	err = wait(ctx, "the postmaster's stop", func() bool {
		// Stopped, also by a debugger (proc_pid_stat(5)), or gone.
		state, _ := stat(postmaster)
		return state == 'T' || state == 't' || state == 'Z' || state == 0
	})
	if err != nil {
		return nil, err
	}
	pids, err := c.Processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
	}
	return pids, nil
}

// Start starts the server again after it has ended, by Shutdown or by itself, on its data and port, and returns once it accepts
// connections.
func (c *Cluster) Start(ctx context.Context) error {
	// One that was killed left this behind, and it still says that it is ready.
	if err := os.Remove(c.pidPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("postgres: %w", err)
	}
	// What the log says does not tell whether it fails: clients that come too early stand there as FATAL.
	if err := c.start(ctx, func([]byte) error { return nil }); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// Running reports whether the server's postmaster lives.
func (c *Cluster) Running() bool {
	pid, err := c.PID()
	if err != nil {
		return false
	}
	state, _ := stat(pid)
	return state != 0 && state != 'Z'
}

// Processes are the ids of the server's processes, that of the postmaster first. Others may come and go meanwhile.
func (c *Cluster) Processes() ([]int, error) {
	postmaster, err := c.PID()
	if err != nil {
		return nil, err
	}
	pids := []int{postmaster}
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if _, parent := stat(pid); parent == postmaster {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// stat reads a process's state and its parent's id (proc_pid_stat(5)), both 0 when there is no such process.
func stat(pid int) (state byte, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name in brackets may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0, 0
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0
	}
	return fields[0][0], parent
}

// wait waits until check returns true, or ctx ends.
func wait(ctx context.Context, what string, check func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres: waiting for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}
