package engineio

import (
	"net/http"
	"slices"
	"strings"
)

// Headers of CORS (the Fetch standard, "HTTP responses").
const (
	allowOrigin      = "Access-Control-Allow-Origin"
	allowCredentials = "Access-Control-Allow-Credentials"
)

// allow applies Options.AllowedOrigins, sets the CORS headers, and reports whether the request may go on.
func (s *Server) allow(w http.ResponseWriter, r *http.Request) bool {
	if len(s.opts.AllowedOrigins) == 0 && s.opts.Cookie == nil {
		w.Header().Set(allowOrigin, "*")
		return true
	}
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	listed := slices.ContainsFunc(s.opts.AllowedOrigins, func(o string) bool { return strings.EqualFold(o, origin) })
	_, host, _ := strings.Cut(origin, "://")
	if !listed && !strings.EqualFold(host, r.Host) {
		return false
	}
	w.Header().Set(allowOrigin, origin)
	if listed && s.opts.Credentials {
		w.Header().Set(allowCredentials, "true") // Not for the host's own pages: of those the scheme is not known to be the same.
	}
	return true
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	if headers := r.Header.Get("Access-Control-Request-Headers"); headers != "" {
		h.Set("Access-Control-Allow-Headers", headers)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// cookie returns Options.Cookie for a session, as a header has it, or nothing.
func (s *Server) cookie(sid string) string {
	if s.opts.Cookie == nil {
		return ""
	}
	cookie := *s.opts.Cookie
	cookie.Value = sid
	return cookie.String()
}
