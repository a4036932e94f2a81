package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestClusterStartsAgainAfterEachShutdown(t *testing.T) {
	c, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	address := c.URL
	for name, way := range map[string]Way{"fast": Fast, "immediate": Immediate, "killed": Killed} {
		before, err := c.Processes()
		if err != nil {
			t.Fatal(err)
		}
		if len(before) < 3 {
			t.Errorf("%s: the server's processes are %v, want the postmaster and others", name, before)
		}
		if err := c.Shutdown(t.Context(), way); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if listens(t, address) || c.Running() {
			t.Errorf("%s: after Shutdown, listens is %t and Running is %t", name, listens(t, address), c.Running())
		}
		for _, pid := range before {
			if state, _ := stat(pid); state != 0 && state != 'Z' && syscall.Kill(pid, 0) == nil {
				t.Errorf("%s: process %d is left in state %c", name, pid, state)
			}
		}
		if err := c.Start(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !listens(t, address) || !c.Running() {
			t.Errorf("%s: after Start, listens is %t and Running is %t", name, listens(t, address), c.Running())
		}
		if after, err := c.PID(); err != nil || after == before[0] {
			t.Errorf("%s: the postmaster is %d, %v, want another than before", name, after, err)
		}
	}
}

func TestReplicaIsPromoted(t *testing.T) {
	c, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if _, err := os.Stat(filepath.Join(c.bin.Dir, "pg_basebackup")); err != nil {
		_, err := c.Replica(t.Context(), "second", Options{})
		if err == nil {
			t.Error("Replica without pg_basebackup = nil, want an error")
		}
		return
	}
	r, err := c.Replica(t.Context(), "second", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	signal := filepath.Join(r.data(), "standby.signal")
	if _, err := os.Stat(signal); err != nil || !listens(t, r.URL) {
		t.Errorf("the replica's mark: %v, listens: %t, want that it has one and listens", err, listens(t, r.URL))
	}
	if err := c.Shutdown(t.Context(), Killed); err != nil {
		t.Fatal(err)
	}
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(signal); !errors.Is(err, fs.ErrNotExist) || !listens(t, r.URL) {
		t.Errorf("after Promote, the replica's mark: %v, listens: %t, want that there is none and that it listens", err, listens(t, r.URL))
	}
}
