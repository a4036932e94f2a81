package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Cores is who runs where. Both empty: nobody is pinned, for there is one core only.
type Cores struct{ Server, Load []int }

// SplitCores gives the server the first half of the cores that this process may use, and the load the rest.
func SplitCores() (Cores, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return Cores{}, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var all []int
	for core := 0; len(all) < set.Count(); core++ {
		if set.IsSet(core) {
			all = append(all, core)
		}
	}
	if len(all) < 2 {
		return Cores{}, nil
	}
	return Cores{Server: all[:len(all)/2], Load: all[len(all)/2:]}, nil
}

// String tells people who runs where.
func (c Cores) String() string {
	if len(c.Server) == 0 {
		return "nothing pinned: server, database and load share one core"
	}
	return fmt.Sprintf("server and database pinned to cores %v, load to cores %v", c.Server, c.Load)
}

// PinProcess keeps all threads of this process to some cores; threads to come inherit it.
func PinProcess(on []int) error {
	if len(on) == 0 {
		return nil
	}
	if err := PinRunning(os.Getpid(), on); err != nil {
		return err
	}
	runtime.GOMAXPROCS(len(on))
	return nil
}

// PinRunning keeps all threads of a process that runs already to some cores. It goes on to use as many threads at once as before.
func PinRunning(pid int, on []int) error {
	if len(on) == 0 {
		return nil
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, setOf(on)); err != nil && !errors.Is(err, unix.ESRCH) { // A thread may have ended meanwhile.
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
	}
	return nil
}

// PinThread locks the calling goroutine to a thread and keeps that, and the processes started from it, to some cores.
// The thread ends with the goroutine, which is never unlocked.
func PinThread(on []int) error {
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
