//go:build chaos

package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the server under test: the one that PARLEY_TEST_BINARY names, or one built by TestMain.
var binary = os.Getenv("PARLEY_TEST_BINARY")

func TestMain(m *testing.M) {
	if err := Isolate(); err != nil {
		log.Fatal(err)
	}
	if os.Getenv(childVariable) != "" {
		log.Fatal(waitForDeath())
	}
	os.Exit(func() int {
		if binary != "" {
			return runTests(m)
		}
		dir, err := os.MkdirTemp("", "parley-world-test-")
		if err != nil {
			log.Print(err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "parley")
		if out, err := exec.Command("go", "build", "-o", binary, "parley/cmd/parley").CombinedOutput(); err != nil {
			log.Printf("go build: %v\n%s", err, out)
			return 1
		}
		return runTests(m)
	}())
}

// runTests runs them, and looks for goroutines that they leave behind.
func runTests(m *testing.M) int {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		log.Print(err)
		return 1
	}
	return code
}

// start starts a world that ends with the test, without an end of a node that nobody asked for.
func start(t *testing.T, o Options) *World {
	t.Helper()
	o.Binary, o.Dir, o.Log = binary, t.TempDir(), t.Output()
	w, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for _, exit := range w.Exits() {
			t.Errorf("%s ended by itself (starting: %t):\n%s", exit.Node, exit.Starting, exit.Cause)
		}
	})
	return w
}

// inject injects the named fault, with seed, and returns what heals it.
func inject(t *testing.T, w *World, name string, seed uint64) (heal func()) {
	t.Helper()
	for _, f := range w.Faults() {
		if f.Name == name {
			undo, err := f.Inject(t.Context(), rand.New(rand.NewPCG(seed, 0)))
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				if err := undo(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Fatalf("there is no fault %q; left out: %+v", name, w.Missing())
	return nil
}

// client makes REST calls in the name of one user, each over a connection of its own.
type client struct {
	w            *World
	conversation string
	sent         atomic.Int64
}

// newClient makes a group to send to.
func newClient(t *testing.T, w *World) *client {
	t.Helper()
	c := &client{w: w}
	status, answer := c.do(t, w.Nodes()[0], http.MethodPost, "/v1/conversations", `{"type":"group","name":"g","member_ids":["bob"]}`, 10*time.Second)
	var row struct{ ID string }
	if status != http.StatusCreated || json.Unmarshal([]byte(answer), &row) != nil {
		t.Fatalf("make a group: %d %s", status, answer)
	}
	c.conversation = row.ID
	return c
}

// do returns the status and body, or 0 and the error when there was no answer within most.
func (c *client) do(t *testing.T, n *Node, method, path, body string, most time.Duration) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+n.Address()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.w.Token("ann"))
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(answer)
}

// send sends a message through n and tells how long the answer took.
func (c *client) send(t *testing.T, n *Node, most time.Duration) (status int, answer string, took time.Duration) {
	t.Helper()
	began := time.Now()
	text := fmt.Sprintf(`{"content":"hello %d"}`, c.sent.Add(1))
	status, answer = c.do(t, n, http.MethodPost, "/v1/conversations/"+c.conversation+"/messages", text, most)
	took = time.Since(began)
	return status, answer, took
}

// sends fails the test unless a message is accepted within most.
func (c *client) sends(t *testing.T, n *Node, most time.Duration) {
	t.Helper()
	if status, answer, took := c.send(t, n, most); status != http.StatusCreated {
		t.Fatalf("a send to %s was answered %d %s after %v, want %d", n.Name, status, answer, took, http.StatusCreated)
	}
}

// history is how many messages a reader finds through n.
func (c *client) history(t *testing.T, n *Node) int {
	t.Helper()
	status, answer := c.do(t, n, http.MethodGet, "/v1/conversations/"+c.conversation+"/messages?limit=100", "", 10*time.Second)
	var page struct{ Messages []struct{ Seq int64 } }
	if status != http.StatusOK || json.Unmarshal([]byte(answer), &page) != nil {
		t.Fatalf("history through %s: %d %s", n.Name, status, answer)
	}
	return len(page.Messages)
}
