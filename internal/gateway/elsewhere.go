package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/engineio"
	"parley/internal/bus"
	"parley/internal/config"
)

const (
	// A node is called by so many letters and digits, new at each start, and a session id is its node's name, a dot
	// and what package engineio draws.
	nodeNameLength = 10
	sidBytesMax    = 64
	// queryBytesMax bounds the query of a request for another node.
	queryBytesMax = 2 << 10
	// goodbyeTimeout is how long a client may go on sending a body that the owner of its session did not want.
	goodbyeTimeout = time.Second
)

// elsewhere has the polling requests for sessions of other nodes answered by those nodes, and answers theirs.
//
// A session id leads to its node's subject on the bus and nowhere else: its node part is of the form of a name, so it
// holds no dot, wildcard or space. It needs no signature. The name of a node is no secret (each of its clients has it),
// so a signature over it would keep nobody from making up ids for it; what cannot be guessed are the 128 random bits
// behind it, and those are compared by the owner alone, in the words and by the path of an id that comes to it
// directly. An id of a node that is not there gets as far as the bus in this process, which knows at once that nobody
// listens. A body is read only when the owner reads it, so one for a made-up id is never held anywhere.
type elsewhere struct {
	bus     *bus.Bus
	name    string
	serve   http.HandlerFunc // the transports of this node
	timeout time.Duration    // for the answer to a request; a poll may wait for a whole heartbeat
	bodyMax int64            // bytes
	bodyIn  time.Duration    // for a body to arrive
	write   time.Duration    // for an answer to be written
	log     *slog.Logger
	leaving context.Context
	leave   context.CancelFunc
	listen  *bus.Subscription

	forwards *prometheus.CounterVec
	pending  prometheus.Gauge
	answers  prometheus.Counter
}

// newElsewhere gives the node its name, and has engine ask it for what it does not know.
func newElsewhere(b *bus.Bus, cfg config.Gateway, log *slog.Logger, engine *engineio.Options) *elsewhere {
	e := &elsewhere{
		bus: b, name: strings.ToLower(rand.Text()[:nodeNameLength]), log: log,
		timeout: cfg.PingInterval + cfg.PingTimeout + cfg.MessageTimeout + cfg.WriteTimeout,
		bodyMax: int64(cfg.MaxPayload), bodyIn: cfg.MessageTimeout, write: cfg.WriteTimeout,
		forwards: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_forwards_total",
			Help: "Polling requests for sessions of other nodes, by what became of them."}, []string{"result"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_gateway_forwards_pending", Help: "Those that wait for the answer of their node."}),
		answers: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_forwards_answered_total",
			Help: "Polling requests that other nodes had from clients of this one."}),
	}
	e.leaving, e.leave = context.WithCancel(context.Background())
	engine.SIDPrefix, engine.Elsewhere = e.name+".", e.forward
	return e
}

// start begins to answer what other nodes forward, by serve.
func (e *elsewhere) start(serve http.HandlerFunc, r prometheus.Registerer) error {
	for _, result := range []string{forwardDone, forwardUnknown, forwardBusy, forwardLost, forwardAborted} {
		e.forwards.WithLabelValues(result)
	}
	r.MustRegister(e.forwards, e.pending, e.answers)
	e.serve = serve
	var err error
	e.listen, err = e.bus.Answer(subjectOf(e.name), e.answer)
	return err
}

// stop ends the requests under way for other nodes; their clients connect again, to whoever serves then.
func (e *elsewhere) stop() {
	e.leave()
	if e.listen != nil {
		e.listen.Unsubscribe()
	}
}

func subjectOf(node string) string { return "parley.node." + node }

// ownerOf returns the name of the node that a session id belongs to, whether or not there is such a node; ok is
// false if it cannot be an id of ours.
func ownerOf(sid string) (node string, ok bool) {
	node, _, found := strings.Cut(sid, ".")
	if !found || len(node) != nodeNameLength || len(sid) > sidBytesMax {
		return "", false
	}
	for _, c := range []byte(node) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "", false
		}
	}
	return node, true
}

// forwarded is a request on its way to the node that owns its session; the body follows if it is read there.
type forwarded struct {
	Method, Query, Host, From string
	Length                    int64
	Header                    http.Header
}

// forwardedHeaders are those that the transports look at.
var forwardedHeaders = []string{"Content-Type", "Origin"}

// forwardedBack is the answer on its way back, behind its length in four bytes and before its body.
type forwardedBack struct {
	Status int
	Header http.Header
}

// What becomes of a request for another node.
const (
	forwardDone    = "done"
	forwardUnknown = "unknown" // no such node
	forwardBusy    = "busy"
	forwardLost    = "lost"    // the node or the way to it has gone, or this one leaves
	forwardAborted = "aborted" // by the client, who went away or did not send its body in time
)

// forward is engineio.Options.Elsewhere. What no other node answers is refused as an unknown session: that is what it
// is when its node has gone.
func (e *elsewhere) forward(w http.ResponseWriter, r *http.Request) bool {
	owner, ok := ownerOf(r.URL.Query().Get("sid"))
	if !ok || len(r.URL.RawQuery) > queryBytesMax {
		return false
	}
	e.pending.Inc()
	result := e.ask(owner, w, r)
	e.pending.Dec()
	e.forwards.WithLabelValues(result).Inc()
	return result == forwardDone || result == forwardBusy
}

func (e *elsewhere) ask(owner string, w http.ResponseWriter, r *http.Request) string {
	f := forwarded{r.Method, r.URL.RawQuery, r.Host, r.RemoteAddr, r.ContentLength, http.Header{}}
	for _, name := range forwardedHeaders {
		if v := r.Header.Values(name); len(v) > 0 {
			f.Header[name] = v
		}
	}
	head, err := json.Marshal(f)
	if err != nil {
		return forwardLost // It is of strings.
	}
	ctx, cancel := context.WithTimeout(r.Context(), e.timeout)
	defer cancel()
	defer context.AfterFunc(e.leaving, cancel)()
	body := &timedBody{r.Body, http.NewResponseController(w), e.bodyIn, e.bodyMax + 1, false}
	data, err := e.bus.Ask(ctx, subjectOf(owner), head, body)
	body.done()
	switch {
	case r.Context().Err() != nil:
		return forwardAborted
	case errors.Is(err, bus.ErrNobody):
		return forwardUnknown
	case errors.Is(err, bus.ErrBusy):
		e.refuse(w, r)
		return forwardBusy
	case err != nil || !e.respond(w, r, data):
		return forwardLost
	}
	return forwardDone
}

// respond writes the answer of another node, unless it is none.
func (e *elsewhere) respond(w http.ResponseWriter, r *http.Request, data []byte) bool {
	var a forwardedBack
	if len(data) < 4 {
		return false
	}
	length := binary.BigEndian.Uint32(data)
	if data = data[4:]; uint64(length) > uint64(len(data)) {
		return false
	}
	if json.Unmarshal(data[:length], &a) != nil || a.Status < http.StatusOK || a.Status > 599 {
		return false
	}
	maps.Copy(w.Header(), a.Header)
	e.dismiss(w, r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(e.write)) // A server that cannot has its own deadline.
	w.WriteHeader(a.Status)
	_, _ = w.Write(data[length:]) // Who has not got it does not poll again, and the owner closes the session.
	return true
}

// refuse answers a request for which there is no room, in the form of package engineio. It has no header for CORS: a
// page sees a failure, and connects again.
func (e *elsewhere) refuse(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "5")
	e.dismiss(w, r)
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"code":3,"message":"Too many requests for other nodes"}`) // As above.
}

// dismiss does not wait for the rest of a body when the connection is closed after the answer.
func (e *elsewhere) dismiss(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && w.Header().Get("Connection") == "close" {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(goodbyeTimeout)) // A server that cannot has its own deadline.
	}
}

// timedBody is a body that must arrive in time from the first read on, and of which no more than a byte too much is
// read: that is for the owner to see.
type timedBody struct {
	body    io.Reader
	rc      *http.ResponseController
	in      time.Duration
	left    int64
	reading bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.reading {
		b.reading = true
		_ = b.rc.SetReadDeadline(time.Now().Add(b.in)) // A server that cannot has its own deadline.
	}
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// done lifts the deadline.
func (b *timedBody) done() {
	if b.reading {
		_ = b.rc.SetReadDeadline(time.Time{}) // As above.
	}
}

// answer serves a request that another node had for a session of this one. The transports see it as one of their own,
// so each of their rules stands in one place.
func (e *elsewhere) answer(ctx context.Context, head []byte, body io.Reader) (data []byte) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("a forwarded request could not be served", "panic", p, "stack", string(debug.Stack()))
			data = nil // The other node takes that for no answer.
		}
	}()
	e.answers.Inc()
	var f forwarded
	if err := json.Unmarshal(head, &f); err != nil {
		return nil
	}
	r := (&http.Request{
		Method: f.Method, URL: &url.URL{Path: Path, RawQuery: f.Query}, Host: f.Host, RemoteAddr: f.From, Header: f.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: f.Length, Body: io.NopCloser(body),
	}).WithContext(ctx)
	if owner, _ := ownerOf(r.URL.Query().Get("sid")); owner != e.name {
		return nil // It would only be sent on.
	}
	w := &recorder{header: http.Header{}}
	e.serve(w, r)
	return w.answer()
}

// recorder is an http.ResponseWriter that keeps the answer.
type recorder struct {
	status int
	header http.Header
	body   []byte
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// answer is what was written; nil if nothing was.
func (w *recorder) answer() []byte {
	if w.status == 0 {
		return nil
	}
	head, err := json.Marshal(forwardedBack{w.status, w.header})
	if err != nil {
		return nil // It is of strings.
	}
	data := make([]byte, 4, 4+len(head)+len(w.body))
	binary.BigEndian.PutUint32(data, uint32(len(head)))
	return append(append(data, head...), w.body...)
}
