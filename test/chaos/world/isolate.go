package world

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// outsideVariable tells the isolated process which network namespace it came from, so that nothing in its environment alone can make it
// believe that it is isolated.
const outsideVariable = "CHAOS_OUTSIDE"

const networkNamespace = "/proc/self/ns/net"

// errIsolated is nil once Isolate has done its work in this process.
var errIsolated = errors.New("the process did not isolate itself")

// Isolate has the rest of the program run in a network namespace that has loopback and nothing else, and in a mount namespace. It is to
// be called once, first of all in main: it runs the program again, with the same arguments, passes SIGTERM on to it, and exits with its
// exit code; only in that second process does it return. Where namespaces cannot be made (by another user than root, or in a
// container that forbids it) it returns in the first process; then worlds leave out the faults that need it, and say why.
func Isolate() error {
	here, err := os.Readlink(networkNamespace)
	if err != nil {
		errIsolated = err
		return nil
	}
	if outside := os.Getenv(outsideVariable); outside != "" && outside != here {
		if errIsolated = furnish(); errIsolated != nil {
			return fmt.Errorf("world: isolate: %w", errIsolated)
		}
		return nil
	}
	if os.Geteuid() != 0 {
		errIsolated = errors.New("it needs root, to make a network of its own")
		return nil
	}
	self := exec.Command("/proc/self/exe")
	self.Args = os.Args
	self.Env = append(os.Environ(), outsideVariable+"="+here)
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The signal goes out when the thread that started the process ends, so that thread waits for it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	// An interrupt typed at the terminal reaches both processes, and the second one decides.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := self.Start(); err != nil {
		errIsolated = fmt.Errorf("no network namespace can be made: %w", err)
		return nil
	}
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				_ = self.Process.Signal(s) // It may have ended already.
			}
		}
	}()
	err = self.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return fmt.Errorf("world: isolate: %w", err)
	}
	code := self.ProcessState.ExitCode()
	if code < 0 {
		code = 1 // A signal ended it.
	}
	os.Exit(code)
	return nil
}

// furnish makes the new namespaces fit to live in.
func furnish() error {
	// What is mounted in here is not to be seen outside (mount_namespaces(7), "Shared subtrees").
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Loopback has to be brought up, and has its address then (netdevice(7)).
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}
