package main

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
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startMax = 30 * time.Second
	stopMax  = 35 * time.Second // the server promises 30
	// clockTicks is USER_HZ, in which Linux tells CPU time in /proc; it is 100 on every machine that Go runs on.
	clockTicks = 100
)

// server is a running `parley serve` of its own process, data folder and port.
type server struct {
	address string // host:port
	pid     int

	binary, dir    string
	db             database
	secret, apiKey string
	cores          []int

	process *os.Process
	exited  chan error
	log     *os.File
}

// database is what a server keeps its data in. The zero value is SQLite, in the server's data folder.
type database struct {
	url        string
	postmaster int // the process whose CPU time, and its children's, counts as the server's
}

// startServer starts binary on a free port with an empty data folder, kept to cores if any.
func startServer(ctx context.Context, binary string, db database, cores []int) (*server, error) {
	dir, err := os.MkdirTemp("", "parley-load-")
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir, db: db, cores: cores, secret: rand.Text() + rand.Text(), apiKey: rand.Text()}
	if err := s.start(ctx); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// start launches the process and waits until it is ready. It is used again to restart a stopped server on its data.
func (s *server) start(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	listener.Close() // the port is for the server now
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600); err != nil {
		return err
	}
	cmd := exec.Command(s.binary, "serve")
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = s.log, s.log
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PARLEY_") && !strings.HasPrefix(variable, "PORT=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env,
		"PARLEY_LISTEN="+s.address, "PARLEY_DATA="+filepath.Join(s.dir, "data"), "PARLEY_JWT_SECRET="+s.secret,
		"PARLEY_API_KEY="+s.apiKey, "PARLEY_RATE_LIMITS=off", "PARLEY_QUOTA_SEND_MESSAGE=off", "PARLEY_QUOTA_CREATE_GROUP=off",
		"PARLEY_LOG_LEVEL=warn")
	if s.db.url != "" {
		cmd.Env = append(cmd.Env, "PARLEY_DATABASE_URL="+s.db.url)
	}
	// The signal goes out when the thread that started the process ends, so that thread waits for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error), make(chan error, 1)
	go func() {
		err := pinThread(s.cores) // the child inherits it, and counts its cores by it
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			exited <- cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process, s.pid, s.exited = cmd.Process, cmd.Process.Pid, exited

	deadline := time.After(startMax)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if response, err := http.Get("http://" + s.address + "/readyz"); err == nil {
			response.Body.Close() // the status says it all
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-s.exited:
			return fmt.Errorf("the server ended: %w\n%s", err, s.logTail())
		case <-deadline:
			s.stop()
			return fmt.Errorf("the server was not ready after %s\n%s", startMax, s.logTail())
		case <-ctx.Done():
			s.stop()
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// logTail is the end of what the server said.
func (s *server) logTail() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// stop ends the process, by force if it does not end by itself.
func (s *server) stop() {
	if s.process == nil {
		return
	}
	s.process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-s.exited:
	case <-time.After(stopMax):
		s.process.Kill() // as above
		<-s.exited
	}
	s.process = nil
	s.log.Close() // the server wrote it, not we
}

// remove stops the server and deletes its folder.
func (s *server) remove() {
	s.stop()
	os.RemoveAll(s.dir) // a temporary folder, for the system to clean if we cannot
}

// token makes a token for user, as an application's own server would (RFC 7519, HS256), good for a day.
func (s *server) token(user string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{"sub": user, "exp": time.Now().Add(24 * time.Hour).Unix()})
	if err != nil {
		panic(err) // a string and a number are always JSON
	}
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write([]byte(signed)) // a hash takes all
	return signed + "." + encode(mac.Sum(nil))
}

// membersPerRequest is how many members one request may name.
const membersPerRequest = 1000

// createGroup makes a group of members, the first of them its owner, and returns its id.
func (s *server) createGroup(ctx context.Context, members []string) (string, error) {
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
func (s *server) post(ctx context.Context, path, user string, content any) (id string, err error) {
	body, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+path, bytes.NewReader(body))
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

// errNoMetric says that the server does not export what was asked for.
var errNoMetric = errors.New("no such metric")

// metric reads a value without labels from /metrics.
func (s *server) metric(name string) (float64, error) {
	response, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s: %w", name, errNoMetric)
}

// cpuSeconds is the CPU time that the server has used, and the database server that works for it.
func (s *server) cpuSeconds() (float64, error) {
	own, err := processTimes(s.pid)
	if err != nil {
		return 0, err
	}
	ticks := own.own
	if s.db.postmaster != 0 {
		more, err := databaseTicks(s.db.postmaster)
		if err != nil {
			return 0, err
		}
		ticks += more
	}
	return float64(ticks) / clockTicks, nil
}

// databaseTicks is the CPU time of a postmaster, of its processes, and of those of them that have ended.
func databaseTicks(postmaster int) (int64, error) {
	times, err := processTimes(postmaster)
	if err != nil {
		return 0, err
	}
	ticks := times.own + times.endedChildren
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, folder := range folders {
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if t, err := processTimes(pid); err == nil && t.parent == postmaster { // one that ended meanwhile is counted next time
			ticks += t.own
		}
	}
	return ticks, nil
}

// times are a process's CPU times, in clock ticks.
type times struct {
	parent             int
	own, endedChildren int64
}

// processTimes reads /proc/pid/stat: after the name in brackets, which may hold anything, the fields from the third on
// (proc_pid_stat(5)): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime.
func processTimes(pid int) (times, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return times{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return times{}, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	var numbers [15]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return times{}, err
		}
	}
	return times{parent: int(numbers[1]), own: numbers[11] + numbers[12], endedChildren: numbers[13] + numbers[14]}, nil
}

// residentBytes is the memory that the server's process holds (VmRSS in /proc/pid/status).
func (s *server) residentBytes() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("/proc/pid/status has no VmRSS")
}

// usedByGo is the memory that Go's heap and stacks have in use, in bytes, garbage that was not collected yet included.
func (s *server) usedByGo() (float64, error) {
	heap, err := s.metric("go_memstats_heap_inuse_bytes")
	if err != nil {
		return 0, err
	}
	stacks, err := s.metric("go_memstats_stack_inuse_bytes")
	return heap + stacks, err
}
