package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTicks is USER_HZ, in which Linux tells CPU time in /proc; it is 100 on every machine that Go runs on.
const clockTicks = 100

// A Process is a running child, which gets SIGKILL when this process ends.
type Process struct {
	PID   int
	Stdin io.WriteCloser // nil unless it was started with Command.Stdin

	process *os.Process
	exited  chan struct{}
	err     error // of the process; read after exited
	log     string
	stopMax time.Duration
}

// A Command says what to start.
type Command struct {
	Args  []string // the program and its arguments
	Env   []string // the whole environment; nil: that of this process
	Dir   string
	Log   string // the file that its output is appended to
	Cores []int  // that it is kept to; empty: any
	Stdin bool   // whether it gets a pipe to read from
	// StopMax is how long it may take to end when it is asked to.
	StopMax time.Duration
}

// Start starts a child.
func (c Command) Start() (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // The child has its own.
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, c.Dir, log, log
	p := &Process{exited: make(chan struct{}), log: c.Log, stopMax: c.StopMax}
	if c.Stdin {
		if p.Stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	// The signal goes out when the thread that started the process ends, so that thread waits for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		err := PinThread(c.Cores) // The child inherits it, and counts its cores by it.
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.process, p.PID = cmd.Process, cmd.Process.Pid
	return p, nil
}

// Ready calls check until it returns true, and returns nil then. Errors: that the process ended, or is not ready after most.
func (p *Process) Ready(ctx context.Context, most time.Duration, check func() bool) error {
	deadline := time.After(most)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-p.exited:
			return fmt.Errorf("the server ended: %w\n%s", cmpErr(p.err, errors.New("without an error")), p.LogTail())
		case <-deadline:
			return fmt.Errorf("the server was not ready after %s\n%s", most, p.LogTail())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// LogTail is the end of what the process wrote.
func (p *Process) LogTail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// Stop asks the process to end, by the end of its input or, if it has none, by SIGTERM, and ends it by force if it does not. It may be
// called again.
func (p *Process) Stop() {
	if p.Stdin != nil {
		_ = p.Stdin.Close() // It may have ended already.
	} else {
		_ = p.process.Signal(syscall.SIGTERM) // As above.
	}
	select {
	case <-p.exited:
	case <-time.After(p.stopMax):
		_ = p.process.Kill() // As above.
		<-p.exited
	}
}

// CPUSeconds is the CPU time that the process has used, as exact as the kernel's scheduler knows it, that of its ended children
// not included.
func (p *Process) CPUSeconds() (float64, error) { return cpuSeconds(p.PID) }

// DescendantsCPUSeconds is the CPU time of a process, of its children, and of those of them that have ended.
func DescendantsCPUSeconds(pid int) (float64, error) {
	t, err := processTimes(pid)
	if err != nil {
		return 0, err
	}
	ticks := t.own + t.endedChildren
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, folder := range folders {
		child, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if t, err := processTimes(child); err == nil && t.parent == pid { // One that ended meanwhile is counted next time.
			ticks += t.own
		}
	}
	return float64(ticks) / clockTicks, nil
}

// times are a process's CPU times, in clock ticks.
type times struct {
	parent             int
	own, endedChildren int64
}

// processTimes reads /proc/pid/stat: after the name in brackets, which may hold anything, the fields from the third on
// (proc_pid_stat(5)): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime.
func processTimes(pid int) (times, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return times{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return times{}, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	var numbers [15]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return times{}, err
		}
	}
	return times{parent: int(numbers[1]), own: numbers[11] + numbers[12], endedChildren: numbers[13] + numbers[14]}, nil
}

// ResidentBytes is the memory that the process holds (VmRSS in /proc/pid/status).
func (p *Process) ResidentBytes() (int64, error) { return p.status("VmRSS:") }

// ResidentPeakBytes is the most that it has held (VmHWM) since it began, or since ForgetPeak.
func (p *Process) ResidentPeakBytes() (int64, error) { return p.status("VmHWM:") }

// ForgetPeak lets the peak begin anew from what the process holds now (proc_pid_clear_refs(5)).
func (p *Process) ForgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID), []byte("5"), 0)
}

func (p *Process) status(field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, field); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", p.PID, field)
}

// SocketBytes is the memory that the kernel holds for the data of all TCP sockets of the machine (/proc/net/sockstat): what was written
// and not read is there, and in no process.
func SocketBytes() (int64, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if values, found := strings.CutPrefix(line, "TCP:"); found {
			if _, pages, found := strings.Cut(values, " mem "); found {
				n, err := strconv.ParseInt(strings.TrimSpace(pages), 10, 64)
				return n * int64(os.Getpagesize()), err
			}
		}
	}
	return 0, errors.New("/proc/net/sockstat has no memory of TCP")
}

// Descriptors is how many files and sockets the process has open.
func (p *Process) Descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	return len(entries), err
}
