package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	startMax = 30 * time.Second
	stopMax  = 35 * time.Second // the server promises 30
)

// Parley is a running `parley serve` with a data folder and a port of its own, the limits on rates lifted.
type Parley struct {
	*Process
	Address string // host:port

	binary, dir    string
	db             Database
	secret, apiKey string
	cores          []int
	settings       []string
}

// A Database is what Parley keeps its data in. The zero value is SQLite, in the server's data folder.
type Database struct {
	URL        string
	Postmaster int // the process whose CPU time, and its children's, counts as the server's
}

// StartParley starts binary on a free port with an empty data folder, kept to cores if any. settings are further environment variables,
// as NAME=value.
func StartParley(ctx context.Context, binary string, db Database, cores []int, settings ...string) (*Parley, error) {
	dir, err := os.MkdirTemp("", "parley-load-")
	if err != nil {
		return nil, err
	}
	s := &Parley{binary: binary, dir: dir, db: db, cores: cores, settings: settings, secret: rand.Text() + rand.Text(), apiKey: rand.Text()}
	if err := s.Start(ctx); err != nil {
		s.Remove()
		return nil, err
	}
	return s, nil
}

// Start launches the process and waits until it is ready. It is used again to restart a stopped server on its data.
func (s *Parley) Start(ctx context.Context) error {
	var err error
	if s.Address, err = FreeAddress(); err != nil {
		return err
	}
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PARLEY_") && !strings.HasPrefix(variable, "PORT=") {
			env = append(env, variable)
		}
	}
	env = append(env,
		"PARLEY_LISTEN="+s.Address, "PARLEY_DATA="+filepath.Join(s.dir, "data"), "PARLEY_JWT_SECRET="+s.secret,
		"PARLEY_API_KEY="+s.apiKey, "PARLEY_RATE_LIMITS=off", "PARLEY_QUOTA_SEND_MESSAGE=off", "PARLEY_QUOTA_CREATE_GROUP=off",
		"PARLEY_LOG_LEVEL=warn")
	if s.db.URL != "" {
		env = append(env, "PARLEY_DATABASE_URL="+s.db.URL)
	}
	env = append(env, s.settings...)
	s.Process, err = Command{Args: []string{s.binary, "serve"}, Env: env, Dir: s.dir, Log: filepath.Join(s.dir, "log"),
		Cores: s.cores, StopMax: stopMax}.Start()
	if err != nil {
		return err
	}
	err = s.Ready(ctx, startMax, func() bool {
		response, err := http.Get("http://" + s.Address + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close() // The status says it all.
		return response.StatusCode == http.StatusOK
	})
	if err != nil {
		s.Stop()
	}
	return err
}

// DatabaseURL is that of PostgreSQL; empty on SQLite.
func (s *Parley) DatabaseURL() string { return s.db.URL }

// Remove stops the server and removes its data.
func (s *Parley) Remove() {
	if s.Process != nil {
		s.Stop()
	}
	_ = os.RemoveAll(s.dir) // It is the system's temporary folder; nothing is lost if we cannot.
}

// FreeAddress is an address on loopback that nobody listens on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// Token makes a token for user, good for a day.
func (s *Parley) Token(user string) string { return Token(s.secret, user) }

// Token makes a token for user, as an application's own server would (RFC 7519, HS256), good for a day.
func Token(secret, user string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{"sub": user, "exp": time.Now().Add(24 * time.Hour).Unix()})
	if err != nil {
		panic(err) // a string and a number are always JSON
	}
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed)) // a hash takes all
	return signed + "." + encode(mac.Sum(nil))
}

// membersPerRequest is how many members one request may name.
const membersPerRequest = 1000

// CreateGroup makes a group of members, the first of them its owner, and returns its id.
func (s *Parley) CreateGroup(ctx context.Context, members []string) (string, error) {
	owner, others := members[0], members[1:]
	now := min(len(others), membersPerRequest)
	id, err := s.post(ctx, "/v1/conversations", owner, map[string]any{"type": "group", "name": "load", "member_ids": others[:now]})
	if err != nil {
		return "", fmt.Errorf("a group of %d: %w", len(members), err)
	}
	for more := range slices.Chunk(others[now:], membersPerRequest) {
		if _, err := s.post(ctx, "/v1/conversations/"+id+"/members", owner, map[string]any{"member_ids": more}); err != nil {
			return "", fmt.Errorf("a group of %d: %w", len(members), err)
		}
	}
	return id, nil
}

// post makes something by REST in the name of user, and returns the id of what the answer is a row of.
func (s *Parley) post(ctx context.Context, path, user string, content any) (id string, err error) {
	body, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Address+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-API-Key", s.apiKey)
	request.Header.Set("X-Parley-User", user)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var row struct{ ID string }
	if response.StatusCode != http.StatusCreated || json.Unmarshal(answer, &row) != nil || row.ID == "" {
		return "", fmt.Errorf("%s: %.300s", response.Status, answer)
	}
	return row.ID, nil
}

// ErrNoMetric says that the server does not export what was asked for.
var ErrNoMetric = errors.New("no such metric")

// Metric reads a value without labels from /metrics.
func (s *Parley) Metric(name string) (float64, error) {
	values, err := s.Metrics()
	if err != nil {
		return 0, err
	}
	value, found := values[name]
	if !found {
		return 0, fmt.Errorf("%s: %w", name, ErrNoMetric)
	}
	return value, nil
}

// Metrics reads all values without labels from /metrics.
func (s *Parley) Metrics() (map[string]float64, error) {
	response, err := http.Get("http://" + s.Address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "#") || strings.Contains(name, "{") {
			continue
		}
		if values[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return values, nil
}

// CPUSeconds is the CPU time that the server has used, and the database server that works for it.
func (s *Parley) CPUSeconds() (float64, error) {
	own, err := s.Process.CPUSeconds()
	if err != nil || s.db.Postmaster == 0 {
		return own, err
	}
	more, err := DescendantsCPUSeconds(s.db.Postmaster)
	return own + more, err
}

// UsedByGo is the memory that Go's heap and stacks have in use, in bytes, garbage that was not collected yet included.
func (s *Parley) UsedByGo() (float64, error) {
	heap, err := s.Metric("go_memstats_heap_inuse_bytes")
	if err != nil {
		return 0, err
	}
	stacks, err := s.Metric("go_memstats_stack_inuse_bytes")
	return heap + stacks, err
}
