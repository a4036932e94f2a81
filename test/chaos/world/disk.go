package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// slowSync is how long a sync takes at least while it is slowed: long enough that no acknowledgement can be mistaken for one that waited.
const slowSync = 300 * time.Millisecond

var (
	slowSyncs  = []time.Duration{3 * time.Second, 10 * time.Second}
	failures   = []time.Duration{500 * time.Millisecond, 3 * time.Second}
	fullnesses = []time.Duration{time.Second, 5 * time.Second}
)

// What is done to system calls, as strace(1) takes it.
const (
	delayed  = "delay_enter=300ms" // slowSync
	ioFails  = "error=EIO"
	roomless = "error=ENOSPC"
)

// The system calls that matter for durability, and those by which a database's files grow.
var (
	syncs  = []string{"fsync", "fdatasync"}
	writes = []string{"write", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate"}
)

// traceFaults harm the system calls of who keeps the data: the node, or PostgreSQL.
func (w *World) traceFaults() []Fault {
	if w.postgres != nil {
		return w.postgres.traceFaults()
	}
	nodes := w.nodeNames()
	return []Fault{
		{Name: "sync-slow", About: "Each sync of the database takes 300 ms more.", AckMin: slowSync, Last: slowSyncs, targets: nodes,
			inject: w.traced(harming(delayed, syncs...))},
		{Name: "sync-error", About: "Each sync of the database fails with an I/O error; the node is restarted to heal.", Last: failures, targets: nodes,
			inject: w.failSync},
		{Name: "write-full", About: "No write to the database's files finds room.", Last: fullnesses, targets: nodes,
			inject: w.traced(harming(roomless, writes...))},
	}
}

// databaseFiles are those of SQLite in a node's data folder.
func (n *Node) databaseFiles() []string {
	file := filepath.Join(n.Data, "parley.db")
	return []string{file, file + "-wal"}
}

// traced harms system calls of a node on its database until it is healed.
func (w *World) traced(args []string) injection {
	return func(ctx context.Context, _ *rand.Rand, target string) (func(context.Context) error, error) {
		n := w.node(target)
		t, err := w.attach(ctx, func() ([]int, error) { return []int{n.PID()}, nil }, append(args, on(n.databaseFiles()...)...)...)
		if err != nil {
			return nil, err
		}
		return func(context.Context) error {
			t.detach()
			return nil
		}, nil
	}
}

// failSync has the syncs of a node fail. What the kernel failed to write is known to nobody then, so the node is restarted.
func (w *World) failSync(ctx context.Context, r *rand.Rand, target string) (func(context.Context) error, error) {
	heal, err := w.traced(harming(ioFails, syncs...))(ctx, r, target)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		err := heal(ctx)
		w.node(target).Stop()
		return err
	}, nil
}

// mountDisk makes a node's data folder a file system of its own.
func (n *Node) mountDisk(sizeBytes int64) error {
	if errIsolated != nil {
		return fmt.Errorf("a disk of its own: %w", errIsolated)
	}
	if err := unix.Mount("parley-chaos", n.Data, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", sizeBytes)); err != nil {
		return fmt.Errorf("mount a disk at %s: %w", n.Data, err)
	}
	return nil
}

// unmountDisk ends mountDisk; whatever still uses the folder does no harm.
func (n *Node) unmountDisk() error {
	if err := unix.Unmount(n.Data, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", n.Data, err)
	}
	return nil
}

// diskFaults fill a node's disk.
func (w *World) diskFaults() []Fault {
	return []Fault{{Name: "disk-full", About: "The disk of a node's data is full to the last byte.", Last: fullnesses, targets: w.nodeNames(), inject: w.fillDisk}}
}

func (w *World) fillDisk(_ context.Context, _ *rand.Rand, target string) (func(context.Context) error, error) {
	n := w.node(target)
	name := filepath.Join(n.Data, "filler")
	if err := fill(name); err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	return func(context.Context) error { return os.Remove(name) }, nil
}

// fill writes a file until its file system has no room.
func fill(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		_, err := file.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2 // What does not fit may fit in part.
		case err != nil:
			return err
		}
	}
	return nil
}
