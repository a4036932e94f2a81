package rest

import (
	"net/http"
	"time"

	"parley/internal/problem"
)

// state is the answer of health and readiness.
type state struct {
	Status string `json:"status" doc:"Always ok."`
}

func (f *face) health(*call) (state, error) { return state{"ok"}, nil }

var errNotReady = &problem.Error{Code: problem.Unavailable, Message: "The node is not ready.", RetryAfter: time.Second}

func (f *face) readiness(c *call) (state, error) {
	if err := f.Ready(c.Context()); err != nil {
		f.Log.Warn("not ready", "request", c.out.id, "err", err)
		return state{}, errNotReady
	}
	return state{"ok"}, nil
}

func (f *face) metrics(c *call) { f.showMetrics.ServeHTTP(c.out, c.Request) }

func (f *face) openAPI(c *call) { write(c.out, http.StatusOK, "application/json", f.openAPIBytes) }

func (f *face) docs(c *call) {
	// The page is one document: no script, and nothing from anywhere else.
	c.out.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	write(c.out, http.StatusOK, "text/html; charset=utf-8", f.docsBytes)
}
