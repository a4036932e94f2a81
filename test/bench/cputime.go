package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuSeconds reads a process's CPU clock. Linux names the clock by the complement of the process id (clock_getcpuclockid(3)): its
// low bits say that it is of the whole process, and counts what the scheduler gave rather than ticks.
func cpuSeconds(pid int) (float64, error) {
	const scheduled = 2
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()).Seconds(), err
}

// OwnCPUSeconds is the CPU time that this process has used.
func OwnCPUSeconds() (float64, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano()).Seconds(), err
}
