package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"parley/test/bench"
)

const (
	// startMax bounds a start: the server has to be there, its database perhaps as well.
	startMax = time.Minute
	// stopMax is more than the time in which the server promises to end.
	stopMax = 35 * time.Second
	// askMax bounds one question for readiness.
	askMax = time.Second
	// retryEvery is the time between two looks at something that is awaited.
	retryEvery = 50 * time.Millisecond
	// relaunchEvery is the time between two starts of a node that ends.
	relaunchEvery = 500 * time.Millisecond
)

// A Node is one `parley serve`, over all its restarts.
type Node struct {
	Name string // node1, node2, ...
	Data string // its data folder

	w         *World
	port      int
	routePort int
	env       []string
	log       string
	disk      bool         // Data is a file system of its own.
	memory    *memoryGroup // nil: the node has no limit

	mu  sync.Mutex
	run *run // nil before the first start
}

// A run is a node's process from its start to its end.
type run struct {
	*bench.Process

	mu    sync.Mutex
	ready bool
	asked bool // The world asked for its end.
}

// newNode names node i, counted from 0.
func (w *World) newNode(i int) *Node {
	name := fmt.Sprintf("node%d", i+1)
	return &Node{Name: name, Data: filepath.Join(w.dir, name), w: w, log: filepath.Join(w.dir, name+".log")}
}

// furnish makes what the node runs in.
func (n *Node) furnish() (err error) {
	if n.port, err = freePort(); err != nil {
		return err
	}
	if n.routePort, err = freePort(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.Data, 0o755); err != nil {
		return err
	}
	if limit := n.w.options.MemoryMaxBytes; limit > 0 {
		if n.memory, err = newMemoryGroup(n.Name, limit); err != nil {
			return err
		}
	}
	if size := n.w.options.DiskMaxBytes; size > 0 {
		if err := n.mountDisk(size); err != nil {
			return err
		}
		n.disk = true
	}
	return nil
}

// Address is where clients reach the node, as host:port, the same for its whole life.
func (n *Node) Address() string { return loopback(n.port) }

// link is the target of faults between the node and its clients.
func (n *Node) link() string { return "clients of " + n.Name }

// PID is the id of the node's process, or of the last one that it had.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run.PID
}

// Alive reports whether the node's process runs. One that is stopped by a signal does.
func (n *Node) Alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run != nil && !n.run.ended()
}

// Ready waits until the node says that it is, or ctx ends.
func (n *Node) Ready(ctx context.Context) error {
	return until(ctx, n.Name+" ready", func() (bool, error) { return n.ready(ctx), nil })
}

// ready asks the node once.
func (n *Node) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Address()+"/readyz", nil)
	if err != nil {
		panic(err) // The address is our own.
	}
	// A connection of its own: one that was kept would tell of a node's former process, or of a cut that is over.
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return false
	}
	response.Body.Close() // The status says it all.
	return response.StatusCode == http.StatusOK
}

// Start starts the node if it does not run, and returns once it is ready. A process that ends before is started again, as an
// operator's supervisor would, and counted in [World.Exits].
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	var launched time.Time
	return until(ctx, n.Name+" started and ready", func() (bool, error) {
		if !n.Alive() {
			if time.Since(launched) < relaunchEvery {
				return false, nil
			}
			launched = time.Now()
			if err := n.Launch(); err != nil {
				return false, err
			}
		}
		if !n.ready(ctx) {
			return false, nil
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.run.mu.Lock()
		defer n.run.mu.Unlock()
		n.run.ready = true
		return true, nil
	})
}

// Launch starts the node's process if it does not run, and does not wait for it to be ready.
func (n *Node) Launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != nil && !n.run.ended() {
		return nil
	}
	args := []string{n.w.options.Binary, "serve"}
	if n.memory != nil {
		args = n.memory.command(args)
	}
	process, err := bench.Command{Args: args, Env: n.env, Dir: n.w.dir, Log: n.log, StopMax: stopMax}.Start()
	if err != nil {
		return fmt.Errorf("world: start %s: %w", n.Name, err)
	}
	r := &run{Process: process}
	n.run = r
	n.w.watching.Go(func() { n.watch(r) })
	return nil
}

// watch records the end of r, unless the world asked for it.
func (n *Node) watch(r *run) {
	<-r.Exited()
	r.mu.Lock()
	asked, ready := r.asked, r.ready
	r.mu.Unlock()
	if asked {
		return
	}
	exit := Exit{Node: n.Name, Time: time.Now(), Starting: !ready, Cause: r.LogTail()}
	n.w.log.Warn("a node ended", "node", n.Name, "starting", exit.Starting)
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.exits = append(n.w.exits, exit)
}

// Kill ends the node's process as kill -9 does, and returns when it is gone.
func (n *Node) Kill() {
	if r := n.ask(); r != nil {
		_ = syscall.Kill(r.PID, syscall.SIGKILL) // It may have ended already.
		<-r.Exited()
	}
}

// Stop ends the node's process as an operator does, by SIGTERM, and by force if it takes longer than it promises.
func (n *Node) Stop() {
	if r := n.ask(); r != nil {
		r.Process.Stop()
	}
}

// Pause freezes the node's process, which keeps its connections and answers nobody, until Continue.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Continue ends Pause.
func (n *Node) Continue() error { return n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run == nil || n.run.ended() {
		return fmt.Errorf("world: %s does not run", n.Name)
	}
	return syscall.Kill(n.run.PID, s)
}

// ask takes note that the present process is to end, and returns it; nil if there is none.
func (n *Node) ask() *run {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != nil {
		n.run.mu.Lock()
		defer n.run.mu.Unlock()
		n.run.asked = true
	}
	return n.run
}

// OutOfMemory is how many of the node's processes the kernel has ended because they had reached [Options.MemoryMaxBytes].
func (n *Node) OutOfMemory() (int, error) {
	if n.memory == nil {
		return 0, nil
	}
	return n.memory.kills()
}

// close ends the node, and removes what it ran in.
func (n *Node) close() error {
	// What is frozen hears nothing but this.
	_ = n.signal(syscall.SIGCONT) // It may not run.
	n.Stop()
	var err error
	if n.disk {
		err = n.unmountDisk()
	}
	if n.memory != nil {
		err = errors.Join(err, n.memory.remove())
	}
	return err
}

func (r *run) ended() bool {
	select {
	case <-r.Exited():
		return true
	default:
		return false
	}
}

// until calls check until it returns true or an error, or ctx ends.
func until(ctx context.Context, what string, check func() (bool, error)) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		done, err := check()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
