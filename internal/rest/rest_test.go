package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/id"
	"parley/internal/sqldb"
)

const apiKey = "an api key of the test"

var secret = []byte("the secret that the tests sign with.")

// front is a server with the face on it, and what is behind it.
type front struct {
	t    testing.TB
	url  string
	log  *logBuffer
	chat *chat.Chat
	stop func() // ends chat's workers; sends find nobody to commit them
}

// start serves db. The zero Parts are filled in; configure changes what a test cares about.
func start(t testing.TB, db *sqldb.DB, configure func(*Parts)) *front {
	t.Helper()
	f := &front{t: t, log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	users := auth.NewUsers(db, time.Now)
	registry := prometheus.NewRegistry()
	domain, err := chat.New(t.Context(), chat.Parts{
		DB: db, Log: log, Now: time.Now, Metrics: registry, EnsureUsers: users.Ensure,
	}, chat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := domain.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.chat = domain
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = domain.Run(ctx) // ends with ctx's error
	}()
	f.stop = func() { stop(); <-ended }
	t.Cleanup(f.stop)

	verifier, err := auth.NewVerifier(auth.VerifierOptions{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	keys, err := auth.NewAPIKeys([]string{apiKey})
	if err != nil {
		t.Fatal(err)
	}
	p := Parts{Chat: domain, Users: users, Verifier: verifier, Keys: keys, Metrics: registry, Log: log}
	if configure != nil {
		configure(&p)
	}
	server := httptest.NewServer(New(p))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// line is the first line that has text in it; "" for none.
func (l *logBuffer) line(text string) string {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}

// request is what a test sends. The path is written to the wire as it stands.
type request struct {
	method, path string
	token        string // none if empty
	header       http.Header
	body         string
	chunked      bool // without a Content-Length
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// client follows no redirection: there must be none.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 30 * time.Second}

func (f *front) do(q request) answer {
	f.t.Helper()
	var body io.Reader = strings.NewReader(q.body)
	if q.chunked {
		body = struct{ io.Reader }{body}
	} else if q.body == "" {
		body = nil
	}
	r, err := http.NewRequestWithContext(f.t.Context(), q.method, f.url+q.path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	resp, err := client.Do(r)
	if err != nil {
		f.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		f.t.Errorf("%s %s: headers %v", q.method, q.path, resp.Header)
	}
	return answer{resp.StatusCode, resp.Header, string(raw)}
}

// as sends a request of a user, wants the status, and reads the answer into out unless it is nil.
func (f *front) as(user id.User, method, path, body string, status int, out any) answer {
	f.t.Helper()
	a := f.do(request{method: method, path: path, token: f.token(user), body: body})
	if a.status != status {
		f.t.Fatalf("%s %s %.200s by %s: %d %s, want %d", method, path, body, user, a.status, a.body, status)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(a.body), out); err != nil {
			f.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	return a
}

func (f *front) token(user id.User) string {
	f.t.Helper()
	return f.mint(auth.Claims{Sub: user, TTL: time.Hour}, secret, time.Now())
}

func (f *front) mint(c auth.Claims, secret []byte, now time.Time) string {
	f.t.Helper()
	token, err := auth.Mint(secret, c, now)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// group makes a group of ann's and others.
func (f *front) group(others ...string) chat.Conversation {
	f.t.Helper()
	ids, err := json.Marshal(others)
	if err != nil {
		f.t.Fatal(err)
	}
	var cv chat.Conversation
	f.as("ann", POST, "/v1/conversations", `{"type":"group","member_ids":`+string(ids)+`}`, 201, &cv)
	return cv
}

// send sends a text.
func (f *front) send(user id.User, cid id.Conversation, text string) chat.Message {
	f.t.Helper()
	body, err := json.Marshal(map[string]string{"content": text})
	if err != nil {
		f.t.Fatal(err)
	}
	var out struct {
		OK      bool         `json:"ok"`
		Message chat.Message `json:"message"`
	}
	f.as(user, POST, "/v1/conversations/"+string(cid)+"/messages", string(body), 201, &out)
	if !out.OK || out.Message.ID == "" {
		f.t.Fatalf("a sent message was answered %+v", out)
	}
	return out.Message
}
