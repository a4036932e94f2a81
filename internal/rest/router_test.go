package rest

import (
	"net/http"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestRouter(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	noRoute := body("Not Found", "not_found", "There is no such route.", "")
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v2/me", "/v1/me/", "/v1/conversations/", "/v1/conversations/x/", "/v1/conversations/x/y", "/healthz/x", "/V1/me",
		"//v1/me", "/v1//me", "/v1/./me", "/v1/x/../me", "/v1/conversations//messages", "/docs/../v1/me", "/%76%31%2Fme",
	} {
		for _, method := range []string{GET, POST, DELETE, "BREW"} {
			check(t, method+" "+path, f.do(request{method: method, path: path, token: f.token("ann")}), noRoute)
		}
	}
	noMethod := body("Method Not Allowed", "method_not_allowed", "The route does not take this method.", "")
	for path, allow := range map[string]string{
		"/v1/me":                          "GET, HEAD, OPTIONS",
		"/v1/conversations":               "POST, GET, HEAD, OPTIONS",
		"/v1/conversations/x/members/y":   "DELETE, OPTIONS",
		"/v1/messages/x":                  "PATCH, DELETE, OPTIONS",
		"/v1/conversations/a%2Fb/members": "GET, POST, HEAD, OPTIONS",
		"/docs":                           "GET, HEAD, OPTIONS",
	} {
		for _, method := range []string{"PUT", "TRACE", "BREW"} {
			a := f.do(request{method: method, path: path})
			check(t, method+" "+path, a, noMethod)
			if got := a.header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow %q, want %q", method, path, got, allow)
			}
		}
		if a := f.do(request{method: "OPTIONS", path: path}); a.status != 204 || a.header.Get("Allow") != allow || a.body != "" {
			t.Errorf("OPTIONS %s: %d %v", path, a.status, a.header)
		}
	}
	if a, b := f.do(request{method: GET, path: "/"}), f.do(request{method: GET, path: "/"}); a.header.Get("X-Request-Id") == b.header.Get("X-Request-Id") {
		t.Error("two requests have one id")
	}
	a := f.do(request{method: GET, path: "/healthz", header: http.Header{"X-Request-Id": {"mine"}}})
	if a.header.Get("X-Request-Id") == "mine" {
		t.Error("a client names its request in our log")
	}
}

func TestCORS(t *testing.T) {
	const page, stranger = "https://app.example.org", "https://evil.example.org"
	preflight := func(f *front, origin, path string) answer {
		return f.do(request{method: "OPTIONS", path: path, header: http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {"PATCH"}, "Access-Control-Request-Headers": {"authorization"}}})
	}
	get := func(f *front, origin string) answer {
		return f.do(request{method: GET, path: "/v1/me", token: f.token("ann"), header: http.Header{"Origin": {origin}}})
	}
	for name, tt := range map[string]struct {
		allowed      []string
		page, others string // what each is told
	}{
		"any":       {nil, "*", "*"},
		"any, said": {[]string{"https://x.example.org", "*"}, "*", "*"},
		"a list":    {[]string{"https://x.example.org", "https://APP.example.org/"}, page, ""},
	} {
		f := start(t, sqldbtest.Open(t, sqldb.SQLite), func(p *Parts) { p.AllowedOrigins = tt.allowed })
		for origin, want := range map[string]string{page: tt.page, stranger: tt.others} {
			for _, path := range []string{"/v1/messages/x", "/nowhere"} {
				a := preflight(f, origin, path)
				if a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != want {
					t.Errorf("%s: preflight of %s: %d %v", name, origin, a.status, a.header)
				}
				wantMethods, wantHeaders := "", ""
				if want != "" {
					wantMethods, wantHeaders = "GET, POST, PATCH, DELETE", "Authorization, Content-Type, X-API-Key, X-Parley-User, Idempotency-Key"
				}
				if a.header.Get("Access-Control-Allow-Methods") != wantMethods || a.header.Get("Access-Control-Allow-Headers") != wantHeaders {
					t.Errorf("%s: preflight of %s: %v", name, origin, a.header)
				}
			}
			a := get(f, origin)
			if a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != want || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: GET of %s: %d %v", name, origin, a.status, a.header)
			}
			if varies := a.header.Get("Vary") == "Origin"; varies != (tt.others == "") {
				t.Errorf("%s: Vary %q", name, a.header.Get("Vary"))
			}
		}
		// A failure can be read by the page, too.
		a := f.do(request{method: GET, path: "/v1/me", header: http.Header{"Origin": {page}}})
		if a.status != 401 || a.header.Get("Access-Control-Allow-Origin") != tt.page {
			t.Errorf("%s: a failure: %d %v", name, a.status, a.header)
		}
	}
}
