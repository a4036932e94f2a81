package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"parley/test/bench"
)

// natsPackage is NATS's own server, a dependency of Parley.
const natsPackage = "github.com/nats-io/nats-server/v2"

// A natsServer is one outside of the nodes.
type natsServer struct {
	w      *World
	binary string
	port   int

	process *bench.Process // belongs to who holds the target "nats"
}

// startNATS builds and starts NATS. It needs the working folder to be in the module.
func (w *World) startNATS(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s := &natsServer{w: w, binary: filepath.Join(w.dir, "nats-server"), port: port}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.binary, natsPackage).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", natsPackage, err, out)
	}
	w.nats = s
	return s.start(ctx)
}

func (s *natsServer) start(ctx context.Context) (err error) {
	s.process, err = bench.Command{Args: []string{s.binary, "-a", "127.0.0.1", "-p", strconv.Itoa(s.port)}, Dir: s.w.dir,
		Log: filepath.Join(s.w.dir, "nats.log"), StopMax: stopMax}.Start()
	if err != nil {
		return err
	}
	return s.process.Ready(ctx, startMax, func() bool {
		conn, err := (&net.Dialer{Timeout: askMax}).DialContext(ctx, "tcp", loopback(s.port))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

func (s *natsServer) url() string { return "nats://" + loopback(s.port) }

func (s *natsServer) signal(signal syscall.Signal) error { return syscall.Kill(s.process.PID, signal) }

func (s *natsServer) stop() {
	if s.process == nil {
		return
	}
	_ = s.signal(syscall.SIGKILL) // It may have ended already, and has nothing to write.
	<-s.process.Exited()
}

// faults harm the server.
func (s *natsServer) faults() []Fault {
	targets := []string{"nats"}
	return []Fault{
		{Name: "nats-kill", About: "NATS is ended by kill -9, and started again within 2 s.", targets: targets, inject: s.kill},
		{Name: "nats-freeze", About: "NATS is frozen by SIGSTOP, and goes on by SIGCONT.", Last: freezes, targets: targets, inject: s.freeze},
	}
}

func (s *natsServer) kill(_ context.Context, r *rand.Rand, _ string) (func(context.Context) error, error) {
	away := between(r, 0, 2*time.Second)
	s.stop()
	return func(ctx context.Context) error {
		if err := bench.Sleep(ctx, away); err != nil {
			return err
		}
		return s.start(ctx)
	}, nil
}

func (s *natsServer) freeze(_ context.Context, _ *rand.Rand, _ string) (func(context.Context) error, error) {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func(context.Context) error { return s.signal(syscall.SIGCONT) }, nil
}
