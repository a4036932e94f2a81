package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"parley/engineio"
	"parley/internal/bus"
	"parley/internal/config"
)

// transports is a node with nothing but them, whose sessions say back what they hear.
type transports struct {
	*elsewhere
	http   *httptest.Server
	engine *engineio.Server

	closed chan string // why sessions ended
}

type echo struct {
	conn   *engineio.Conn
	closed chan string
}

func (e echo) Message(data []byte, _ bool) {
	f := engineio.TextFrame(len(data), func(b []byte) []byte { return append(b, data...) })
	e.conn.Send(&f)
}

func (e echo) Close(reason string) { e.closed <- reason }

// ended waits for the end of a session, and returns its reason.
func (w *transports) ended(t *testing.T) string {
	t.Helper()
	select {
	case reason := <-w.closed:
		return reason
	case <-time.After(10 * time.Second):
		t.Fatal("no session has ended in 10 s")
		return ""
	}
}

// startNode starts a node of a cluster, which is reached by the nodes after it.
func startNode(t testing.TB, routes ...string) (*transports, *bus.Bus) {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{NoEcho: true, ClusterListen: "127.0.0.1:0", ClusterRoutes: routes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := config.Gateway{PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, MessageTimeout: time.Second, WriteTimeout: 10 * time.Second, MaxPayload: 1_000_000}
	opts := engineio.Options{Path: Path, MaxPayload: int(cfg.MaxPayload), MessageTimeout: cfg.MessageTimeout, AllowedOrigins: []string{"https://chat.example"}}
	w := &transports{elsewhere: newElsewhere(b, cfg, slog.New(slog.DiscardHandler), &opts), closed: make(chan string, 100)}
	w.engine = engineio.NewServer(opts, func(c *engineio.Conn, _ *http.Request) engineio.Session {
		return echo{c, w.closed}
	})
	if err := w.start(w.engine.ServeHTTP, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(w.engine)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.engine.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		w.stop()
		w.http.Close()
	})
	return w, b
}

// startPair starts two nodes that know of each other.
func startPair(t testing.TB) (a, b *transports) {
	t.Helper()
	a, busA := startNode(t)
	b, _ = startNode(t, busA.ClusterAddr())
	eventually(t, "the nodes reach each other", func() bool {
		_, err := b.bus.Ask(t.Context(), subjectOf(a.name), nil, nil)
		_, back := a.bus.Ask(t.Context(), subjectOf(b.name), nil, nil)
		return err == nil && back == nil
	})
	return a, b
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

// answer is what a client sees of one.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Close  bool
}

func request(ctx context.Context, node *transports, method, query, body string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, node.http.URL+Path+"?"+query, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	res.Header.Del("Date")
	return answer{res.StatusCode, res.Header, string(data), res.Close}, err
}

func ask(t testing.TB, node *transports, method, query, body string, header ...string) answer {
	t.Helper()
	a, err := request(t.Context(), node, method, query, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, query, err)
	}
	return a
}

// open makes a session, and returns its id.
func (w *transports) open(t testing.TB) string {
	t.Helper()
	_, sid, _ := strings.Cut(ask(t, w, "GET", "EIO=4&transport=polling", "").Body, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	if !strings.HasPrefix(sid, w.name+".") {
		t.Fatalf("the session id %q is not one of the node %s", sid, w.name)
	}
	return sid
}

const sessionUnknown = `{"code":1,"message":"Session ID unknown"}`

// TestForwardedAsLocal makes the same requests to the owner of a session and to the other node, and wants the same answers
// to the last header.
func TestForwardedAsLocal(t *testing.T) {
	owner, other := startPair(t)
	const origin = "https://chat.example"
	large := strings.Repeat("x", 900_000)
	type step struct {
		method, body string
		header       []string
	}
	for name, steps := range map[string][]step{
		"to and fro":       {{"POST", "4a\x1e4grüße", nil}, {"GET", "", nil}, {"POST", "4b", nil}, {"GET", "", nil}},
		"large":            {{"POST", "4" + large, nil}, {"GET", "", nil}, {"POST", "4x", nil}, {"GET", "", nil}},
		"an origin":        {{"POST", "4a", []string{"Origin", origin}}, {"GET", "", []string{"Origin", origin}}},
		"a wrong origin":   {{"GET", "", []string{"Origin", "https://evil.example"}}},
		"too large":        {{"POST", strings.Repeat("4", 1_000_001), nil}, {"POST", "4a", nil}},
		"much too large":   {{"POST", strings.Repeat("4", 3_000_000), nil}},
		"malformed":        {{"POST", "abc", nil}, {"GET", "", nil}},
		"binary":           {{"POST", "4a", []string{"Content-Type", "application/octet-stream"}}, {"GET", "", nil}},
		"closed by client": {{"POST", "1", nil}, {"GET", "", nil}, {"GET", "", nil}, {"POST", "4a", nil}},
		"another method":   {{"PUT", "4a", nil}, {"POST", "4a", nil}},
		"GET with a body":  {{"GET", "4a", nil}},
	} {
		local, away := owner.open(t), owner.open(t)
		for i, s := range steps {
			want := ask(t, owner, s.method, "EIO=4&transport=polling&sid="+local, s.body, s.header...)
			got := ask(t, other, s.method, "EIO=4&transport=polling&sid="+away, s.body, s.header...)
			if !reflect.DeepEqual(got, want) {
				got.Body, want.Body = got.Body[:min(len(got.Body), 100)], want.Body[:min(len(want.Body), 100)]
				t.Errorf("%s, step %d:\nfrom the other node %+v,\nfrom the owner      %+v", name, i, got, want)
			}
		}
	}
	if n := testutil.ToFloat64(other.forwards.WithLabelValues(forwardDone)); n < 20 {
		t.Errorf("%v requests forwarded", n)
	}
}

// A poll that waits is answered when there is something, and one that its client gives up ends the session, as on the
// owner itself.
func TestForwardedPollWaits(t *testing.T) {
	owner, other := startPair(t)
	q := "EIO=4&transport=polling&sid=" + owner.open(t)
	waits := func() bool { return testutil.ToFloat64(other.pending) == 1 }
	got := make(chan string)
	go func() {
		a, _ := request(t.Context(), other, "GET", q, "")
		got <- a.Body
	}()
	eventually(t, "a poll", waits)
	ask(t, owner, "POST", q, "4later")
	if body := <-got; body != "4later" {
		t.Errorf("a poll was answered %q", body)
	}

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		a, _ := request(ctx, other, "GET", q, "")
		got <- a.Body
	}()
	eventually(t, "a poll", waits)
	eventually(t, "the poll at the owner", func() bool { return testutil.ToFloat64(owner.answers) >= 3 })
	cancel()
	<-got
	if reason := owner.ended(t); reason != engineio.ReasonTransportError {
		t.Errorf("the session ended for %q", reason)
	}
	if a := ask(t, owner, "GET", q, ""); a.Body != sessionUnknown {
		t.Errorf("after the poll was given up: %+v", a)
	}
	eventually(t, "it is counted", func() bool { return testutil.ToFloat64(other.forwards.WithLabelValues(forwardAborted)) == 1 })
}

// TestForgedSIDs holds ids that nobody gave out to one answer, and none to the session of somebody.
func TestForgedSIDs(t *testing.T) {
	owner, other := startPair(t)
	real := owner.open(t)
	q := "EIO=4&transport=polling&sid="
	want := ask(t, owner, "GET", q+owner.name+".AAAAAAAAAAAAAAAAAAAAAA", "")
	wantPost := ask(t, owner, "POST", q+owner.name+".AAAAAAAAAAAAAAAAAAAAAA", "4a")
	if want.Body != sessionUnknown || want.Status != http.StatusBadRequest {
		t.Fatalf("the owner itself answers %+v", want)
	}
	random := strings.TrimPrefix(real, owner.name)
	for _, c := range []struct {
		sid      string
		reaches  bool // its node, which looks it up
		forwards bool // it is of the form of ours
	}{
		{owner.name + ".AAAAAAAAAAAAAAAAAAAAAA", true, true},
		{owner.name + random + "A", true, true},
		{owner.name + ".", true, true},
		{owner.name + "." + random, true, true},
		{"aaaaaaaaaa" + random, false, true},
		{owner.name, false, false},
		{owner.name + random + strings.Repeat("A", sidBytesMax), false, false},
		{strings.ToUpper(owner.name) + random, false, false},
		{other.name + random, false, false}, // its own prefix
		{random, false, false},
		{"*" + random, false, false},
		{">" + random, false, false},
		{"*.*", false, false},
		{"**********" + random, false, false},
		{">>>>>>>>>>" + random, false, false},
		{"..%2F..%2F" + owner.name + random, false, false},
		{"%20%20%20%20%20%20%20%20%20%20" + random, false, false},
		{"aaaaaaaaa%00" + random, false, false},
		{"a.aaaaaaaa" + random, false, false},
		{"aaaa%0d%0aPUB" + random, false, false},
		{"log.1", false, false},
		{"ä", false, false},
		{"garbage", false, false},
	} {
		seen, asked := testutil.ToFloat64(owner.answers), forwardsOf(other)
		if got := ask(t, other, "GET", q+c.sid, ""); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", c.sid, got, want)
		}
		if got := ask(t, other, "POST", q+c.sid, "4a"); !reflect.DeepEqual(got, wantPost) {
			t.Errorf("%q: %+v, want %+v", c.sid, got, wantPost)
		}
		if n := testutil.ToFloat64(owner.answers) - seen; (n > 0) != c.reaches {
			t.Errorf("%q reached the owner of another session %v times", c.sid, n)
		}
		if n := forwardsOf(other) - asked; (n > 0) != c.forwards {
			t.Errorf("%q was forwarded %v times", c.sid, n)
		}
	}
	if a := ask(t, other, "POST", q+real, "4still"); a.Body != "ok" {
		t.Errorf("the session was harmed: %+v", a)
	}
	if a := ask(t, other, "GET", q+real, ""); a.Body != "4still" {
		t.Errorf("the session was harmed: %+v", a)
	}
	long := ask(t, other, "GET", q+real+"&t="+strings.Repeat("x", queryBytesMax), "")
	if !reflect.DeepEqual(long, want) {
		t.Errorf("a long query: %+v", long)
	}
}

func forwardsOf(e *transports) (n float64) {
	for _, result := range []string{forwardDone, forwardUnknown, forwardBusy, forwardLost, forwardAborted} {
		n += testutil.ToFloat64(e.forwards.WithLabelValues(result))
	}
	return n
}

// raw sends a request by hand and returns the connection.
func raw(t *testing.T, node *transports, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", node.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// A body for a made-up session is not waited for, and one for a real session only as long as on its owner.
func TestForwardedBodies(t *testing.T) {
	owner, other := startPair(t)
	post := func(sid string) string {
		return fmt.Sprintf("POST %s?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 900000\r\n\r\n", Path, sid)
	}
	for _, node := range []*transports{owner, other} {
		for _, sid := range []string{owner.name + ".AAAAAAAAAAAAAAAAAAAAAA", "aaaaaaaaaa.AAAAAAAAAAAAAAAAAAAAAA"} {
			_, in := raw(t, node, post(sid))
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != http.StatusBadRequest || !res.Close {
				t.Errorf("a body that never comes, for nobody: %+v, %v", res, err)
			}
		}
		// Two bytes, and then nothing more in a second: the session has broken.
		sid := owner.open(t)
		_, in := raw(t, node, post(sid)+"4a")
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusBadRequest {
			t.Fatalf("a body that never comes: %+v, %v", res, err)
		}
		if reason := owner.ended(t); reason != engineio.ReasonTransportError {
			t.Errorf("a body that never comes ended its session for %q", reason)
		}
		if a := ask(t, owner, "GET", "EIO=4&transport=polling&sid="+sid, ""); a.Body != sessionUnknown {
			t.Errorf("after a body that never came: %+v", a)
		}
		// One that breaks off ends its session too.
		c, _ := raw(t, node, post(owner.open(t))+"4a")
		c.Close()
		if reason := owner.ended(t); reason != engineio.ReasonTransportError {
			t.Errorf("a body that breaks off ended its session for %q", reason)
		}
	}
}

// TestNodesGo ends the owner of a session, and the other node, under a poll.
func TestNodesGo(t *testing.T) {
	owner, busA := startNode(t)
	other, _ := startNode(t, busA.ClusterAddr())
	eventually(t, "the nodes reach each other", func() bool {
		_, err := other.bus.Ask(t.Context(), subjectOf(owner.name), nil, nil)
		return err == nil
	})
	poll := func() chan answer {
		got := make(chan answer, 1)
		q := "EIO=4&transport=polling&sid=" + owner.open(t)
		answers := testutil.ToFloat64(owner.answers)
		go func() {
			a, _ := request(t.Context(), other, "GET", q, "")
			got <- a
		}()
		eventually(t, "a poll", func() bool { return testutil.ToFloat64(owner.answers) > answers })
		return got
	}
	refused := func(what string, got chan answer) {
		t.Helper()
		select {
		case a := <-got:
			if a.Body != sessionUnknown || a.Header.Get("Vary") == "" {
				t.Errorf("%s: %+v", what, a)
			}
		case <-time.After(8 * time.Second):
			t.Fatalf("%s: the poll still waits", what)
		}
	}
	got := poll()
	other.leave()
	refused("the forwarding node leaves", got)

	other.leaving, other.leave = context.WithCancel(context.Background())
	got = poll()
	busA.Close()
	refused("the owner goes", got)
}

// TestForeignAnswers has something answer that is no node.
func TestForeignAnswers(t *testing.T) {
	owner, busA := startNode(t)
	other, _ := startNode(t, busA.ClusterAddr())
	answers := make(chan []byte, 1)
	if _, err := busA.Answer(subjectOf("aaaaaaaaaa"), func(_ context.Context, head []byte, _ io.Reader) []byte {
		if len(head) == 0 {
			return nil
		}
		return <-answers
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known", func() bool {
		_, err := other.bus.Ask(t.Context(), subjectOf("aaaaaaaaaa"), nil, nil)
		return err == nil
	})
	framed := func(length uint32, head string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, length), head...)
	}
	for _, data := range [][]byte{
		nil, {1}, {0, 0, 0}, framed(0, ""), framed(1<<31, "{}"), framed(3, "{}"), framed(2, "[]"),
		framed(12, `{"Status":0}`), framed(14, `{"Status":100}`), framed(16, `{"Status":-1000}`), framed(14, `{"Status":600}`),
	} {
		answers <- data
		if a := ask(t, other, "GET", "EIO=4&transport=polling&sid=aaaaaaaaaa.x", ""); a.Body != sessionUnknown {
			t.Errorf("%q: %+v", data, a)
		}
	}
	// And questions that no node asks.
	for _, head := range []string{"", "x", "{}", `{"Method":"GET","Query":"EIO=4&transport=polling"}`,
		`{"Method":"GET","Query":"EIO=4&transport=polling&sid=` + other.name + `.x"}`} {
		got, err := other.bus.Ask(t.Context(), subjectOf(owner.name), []byte(head), bytes.NewReader(nil))
		if err != nil || len(got) != 0 {
			t.Errorf("%s: %q, %v", head, got, err)
		}
	}
}

// BenchmarkForward is what a POST and the poll after it take at the owner of their session, and through another node.
func BenchmarkForward(b *testing.B) {
	owner, other := startPair(b)
	for name, node := range map[string]*transports{"owner": owner, "other": other} {
		b.Run(name, func(b *testing.B) {
			q := "EIO=4&transport=polling&sid=" + owner.open(b)
			for b.Loop() {
				ask(b, node, "POST", q, "4a")
				ask(b, node, "GET", q, "")
			}
		})
	}
}
