package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"parley/internal/problem"
)

// problemDetails is the body of every failure: RFC 9457, section 3.1, and what clients of the tutorial look for.
type problemDetails struct {
	Type             string       `json:"type" doc:"Always about:blank: code tells failures apart."`
	Title            string       `json:"title" doc:"The status in words."`
	Status           int          `json:"status" doc:"The HTTP status."`
	Detail           string       `json:"detail" doc:"What went wrong, for people."`
	Code             problem.Code `json:"code" doc:"What went wrong, for programs."`
	Error            string       `json:"error" doc:"The same sentence as detail."`
	RequestID        string       `json:"request_id,omitempty" doc:"What to name to the operator, when the cause is in the log."`
	RetryAfterMillis int64        `json:"retry_after_ms,omitempty" doc:"When to try again."`
}

var (
	errUnavailable = &problem.Error{Code: problem.Unavailable, Message: "The server cannot answer now.", RetryAfter: time.Second}
)

func internal() *problem.Error {
	e, _ := problem.Of(errors.New("unknown"))
	return e
}

// fail answers with what the client may see of err, and logs the rest.
func (f *face) fail(x *exchange, r *http.Request, err error) {
	e, shown := problem.Of(err)
	switch {
	case shown && e.Code.Status() < http.StatusInternalServerError:
		f.Log.Debug("a request was refused", "request", x.id, "operation", x.operation, "err", err)
	case r.Context().Err() != nil:
		// The client is gone, and what failed failed because of that. Nobody reads the answer.
		f.Log.Debug("a request was given up", "request", x.id, "operation", x.operation, "err", err)
		e = errUnavailable
	default:
		if !shown && errors.Is(err, context.DeadlineExceeded) {
			e = errUnavailable
		}
		f.Log.Error("a request failed", "request", x.id, "operation", x.operation, "code", e.Code, "err", err)
	}
	writeProblem(x, e)
}

// writeProblem writes e; one whose cause is in the log names the request.
func writeProblem(x *exchange, e *problem.Error) {
	status := e.Code.Status()
	body := problemDetails{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Message, Code: e.Code, Error: e.Message,
		RetryAfterMillis: e.RetryAfter.Milliseconds(),
	}
	if status >= http.StatusInternalServerError {
		body.RequestID = x.id
	}
	h := x.Header()
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic("rest: a problem cannot be encoded: " + err.Error())
	}
	write(x, status, "application/problem+json", raw)
}

// write sends a whole answer. That it may not arrive is the client's loss, and he will notice.
func write(x *exchange, status int, contentType string, raw []byte) {
	h := x.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	x.WriteHeader(status)
	_, _ = x.Write(raw)
}
