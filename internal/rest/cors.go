package rest

import (
	"net/http"
	"slices"
	"strings"
)

const (
	corsMethods = "GET, POST, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, X-API-Key, X-Parley-User, Idempotency-Key"
	corsExposed = "X-Request-Id, Retry-After, Location"
	corsSeconds = "7200" // how long a browser may keep the answer to a preflight; Chromium keeps none longer
)

// originSet is nil when every origin is allowed.
func originSet(origins []string) map[string]bool {
	if len(origins) == 0 || slices.Contains(origins, "*") {
		return nil
	}
	set := map[string]bool{}
	for _, o := range origins {
		set[strings.ToLower(strings.TrimSuffix(o, "/"))] = true
	}
	return set
}

// preflight sets the headers of the Fetch standard's CORS protocol, and answers a preflight request itself.
// An origin that is not allowed gets none of them, which is how its browser is told.
func (f *face) preflight(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	asks := r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != ""
	h := w.Header()
	allowed := "*"
	if f.origins != nil {
		h.Add("Vary", "Origin") // also where there is none: a cache must not give that answer to one who has
		if allowed = origin; !f.origins[strings.ToLower(origin)] {
			allowed = ""
		}
	}
	if origin != "" && allowed != "" {
		h.Set("Access-Control-Allow-Origin", allowed)
		h.Set("Access-Control-Expose-Headers", corsExposed)
		if asks {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", corsSeconds)
		}
	}
	if asks {
		w.WriteHeader(http.StatusNoContent)
	}
	return asks
}
