//go:build chaos

package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childVariable makes the test binary start a world, print the ids of its processes, and wait to be killed.
const childVariable = "PARLEY_WORLD_TEST_CHILD"

func waitForDeath() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := Start(ctx, Options{Kind: NATS, Binary: binary, Dir: os.Getenv(childVariable)})
	if err != nil {
		return err
	}
	pids, err := w.postgres.primary.Processes()
	if err != nil {
		return err
	}
	pids = append(pids, w.nats.process.PID)
	for _, n := range w.Nodes() {
		pids = append(pids, n.PID())
	}
	fmt.Println(strings.Trim(fmt.Sprint(pids), "[]"))
	<-ctx.Done()
	return ctx.Err()
}

func TestWorldEndsWithItsKilledHarness(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	harness := exec.Command(self)
	harness.Env = append(os.Environ(), childVariable+"="+t.TempDir(), "PARLEY_TEST_BINARY="+binary)
	harness.Stderr = os.Stderr
	out, err := harness.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := harness.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = harness.Process.Kill() // It may have failed before, which is what err says.
	_ = harness.Wait()         // It was killed.
	if err != nil {
		t.Fatalf("the harness's first line: %v", err)
	}
	pids := strings.Fields(line)
	if len(pids) < 6 {
		t.Fatalf("the world's processes are %v, want PostgreSQL's, NATS's and two nodes'", pids)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, pid := range pids {
		err := until(ctx, "the end of process "+pid, func() (bool, error) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				return false, err
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
			if errors.Is(err, fs.ErrNotExist) {
				return true, nil
			}
			// Whoever adopted it may not have looked after it yet (proc_pid_stat(5)).
			return strings.Contains(string(text), ") Z "), nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
