package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// cores is who runs where. Both empty: nobody is pinned, for there is one core only.
type cores struct{ server, load []int }

// split gives the server the first half of the cores that this process may use, and the load the rest.
func split() (cores, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cores{}, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var all []int
	for core := 0; len(all) < set.Count(); core++ {
		if set.IsSet(core) {
			all = append(all, core)
		}
	}
	if len(all) < 2 {
		return cores{}, nil
	}
	return cores{server: all[:len(all)/2], load: all[len(all)/2:]}, nil
}

// String tells people who runs where.
func (c cores) String() string {
	if len(c.server) == 0 {
		return "nothing pinned: server, database and load share one core"
	}
	return fmt.Sprintf("server and database pinned to cores %v, load to cores %v", c.server, c.load)
}

// pinProcess keeps all threads of this process to some cores; threads to come inherit it.
func pinProcess(on []int) error {
	if len(on) == 0 {
		return nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, setOf(on)); err != nil {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
	}
	runtime.GOMAXPROCS(len(on))
	return nil
}

// pinThread locks the calling goroutine to a thread and keeps that, and the processes started from it, to some cores.
// The thread ends with the goroutine, which is never unlocked.
func pinThread(on []int) error {
	runtime.LockOSThread()
	if len(on) == 0 {
		return nil
	}
	if err := unix.SchedSetaffinity(0, setOf(on)); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}

func setOf(on []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, core := range on {
		set.Set(core)
	}
	return &set
}
