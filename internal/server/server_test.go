package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"parley/internal/config"
)

// settings reads the defaults and what args say.
func settings(t *testing.T, args ...string) *config.Serve {
	t.Helper()
	var cfg config.Serve
	parser, err := kong.New(&cfg, config.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"--data", t.TempDir(), "--listen", "127.0.0.1:0"}, args...)); err != nil {
		t.Fatal(err)
	}
	return &cfg
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// TestRun starts a node, asks what an operator asks, and wants nothing left when it has stopped.
func TestRun(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr, ended := make(chan string, 1), make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() { ended <- Run(ctx, settings(t), log, func(a string) { addr <- a }) }()
	var url string
	select {
	case a := <-addr:
		url = "http://" + a
	case err := <-ended:
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "", "/metrics": "parley_gateway_sessions 0", "/openapi.json": `"openapi"`,
		"/socket.io/?EIO=4&transport=polling": `"sid"`,
	} {
		if status, body := get(t, url+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %.200s", path, status, body)
		}
	}
	// An unclean path is answered as a problem, not redirected.
	if status, body := get(t, url+"//v1/me"); status != 404 || !strings.Contains(body, `"not_found"`) {
		t.Errorf("GET //v1/me: %d %s", status, body)
	}
	// A second server on the same port says which setting to change.
	err := Run(t.Context(), settings(t, "--listen", strings.TrimPrefix(url, "http://")), log, func(string) { t.Error("it started") })
	if err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("a taken port: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}
	if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		_ = c.Close() // the test has failed already
		t.Error("the port is still open")
	}
}

func TestRunRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for words, args := range map[string][]string{
		"--data":         {"--data", "/proc/none"},
		"--listen":       {"--listen", "203.0.113.1:1"},
		"--jwt-key-file": {"--jwt-key-file", "/no/such/file"},
	} {
		err := Run(t.Context(), settings(t, args...), log, func(string) { t.Error("it started") })
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v: %v, want it to name %s", args, err, words)
		}
	}
}
