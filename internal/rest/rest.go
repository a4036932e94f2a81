package rest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/problem"
)

// BodyBytesMax bounds a request's body unless Parts say otherwise.
const BodyBytesMax = 256 << 10

// Parts are what the face works with.
type Parts struct {
	Chat     *chat.Chat
	Users    *auth.Users
	Verifier *auth.Verifier
	Keys     auth.APIKeys // the zero value: no API key is accepted

	// Ready says why the node should get no requests now; its words are logged, not shown. nil: it always should.
	Ready func(ctx context.Context) error
	// Metrics is what GET /metrics shows, and where the face registers its own.
	Metrics *prometheus.Registry
	Log     *slog.Logger

	// AllowedOrigins are those whose pages may read answers, as browsers write them (https://example.org).
	// None, or "*" among them: all may. Credentials (cookies) are never allowed.
	AllowedOrigins []string
	BodyBytesMax   int64 // of a request; 0: the constant of that name
}

// face is one node's REST face.
type face struct {
	Parts
	mux         *http.ServeMux
	origins     map[string]bool // nil: any
	showMetrics http.Handler

	openAPIBytes, docsBytes []byte // what the table says of itself

	seconds *prometheus.HistogramVec // by route and status
	panics  prometheus.Counter
}

// New makes the handler of every route, and registers its metrics.
func New(p Parts) http.Handler {
	if p.BodyBytesMax == 0 {
		p.BodyBytesMax = BodyBytesMax
	}
	if p.Ready == nil {
		p.Ready = func(context.Context) error { return nil }
	}
	ref := describe()
	f := &face{
		Parts: p, openAPIBytes: ref.openAPI(), docsBytes: ref.html(),
		mux: http.NewServeMux(), origins: originSet(p.AllowedOrigins), showMetrics: promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_rest_request_seconds", Help: "How long requests took, by operation and status.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"operation", "status"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_rest_panics_total", Help: "Requests that ended in a panic."}),
	}
	p.Metrics.MustRegister(f.seconds, f.panics)

	methods := map[string][]string{}
	for i := range routes {
		rt := &routes[i]
		f.mux.Handle(rt.method+" "+rt.path, f.serve(rt))
		methods[rt.path] = append(methods[rt.path], rt.method)
	}
	for path, allowed := range methods {
		f.mux.Handle(path, f.otherMethod(allowed)) // less specific than those above
	}
	f.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { f.fail(w.(*exchange), r, errNoRoute) })
	return f
}

var (
	errNoRoute  = problem.New(problem.NotFound, "There is no such route.")
	errNoMethod = problem.New(problem.MethodNotAllowed, "The route does not take this method.")
)

// otherMethod answers what no line of the table takes (RFC 9110, sections 9.3.7 and 15.5.6).
func (f *face) otherMethod(allowed []string) http.HandlerFunc {
	for _, m := range allowed {
		if m == http.MethodGet {
			allowed = append(allowed, http.MethodHead) // the mux answers it, by GET
			break
		}
	}
	allow := strings.Join(append(allowed, http.MethodOptions), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		f.fail(w.(*exchange), r, errNoMethod)
	}
}

// ServeHTTP answers one request, whatever it is.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, id: newRequestID(), operation: "none", began: time.Now()}
	h := w.Header()
	h.Set("X-Request-Id", x.id)
	h.Set("X-Content-Type-Options", "nosniff")
	defer f.end(x, r)
	switch {
	case f.preflight(x, r):
	case !isClean(r.URL.EscapedPath()):
		f.fail(x, r, errNoRoute)
	default:
		f.mux.ServeHTTP(x, r)
	}
}

// isClean tells whether the mux will take a path as it stands. It would answer others with a redirection in HTML,
// which is of no use to a client of ours.
func isClean(p string) bool {
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean == p
}

// end counts the request, and catches its panic.
func (f *face) end(x *exchange, r *http.Request) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler { // how net/http is told to cut the connection; no fault
			panic(v)
		}
		f.panics.Inc()
		f.Log.Error("a request panicked", "request", x.id, "operation", x.operation, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		if x.status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
		writeProblem(x, internal())
	}
	took := time.Since(x.began)
	f.seconds.WithLabelValues(x.operation, strconv.Itoa(x.status)).Observe(took.Seconds())
	f.Log.Debug("request", "request", x.id, "operation", x.operation, "method", r.Method, "status", x.status, "took", took)
}

// exchange is a request's way back, and what is known of it.
type exchange struct {
	http.ResponseWriter
	id        string // of the request
	operation string // the route's name; "none" where there is none
	began     time.Time
	status    int // 0: nothing was written yet
}

// WriteHeader notes the status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write notes the status that it implies.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func newRequestID() string {
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
