package rest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestTokens(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	good := f.token("ann")
	parts := strings.Split(good, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
	other := f.mint(auth.Claims{Sub: "ann", TTL: time.Hour}, []byte("another secret than the server's..."), time.Now())
	old := f.mint(auth.Claims{Sub: "ann", TTL: time.Hour}, secret, time.Now().Add(-2*time.Hour))
	oldOther := f.mint(auth.Claims{Sub: "ann", TTL: time.Hour}, []byte("another secret than the server's..."), time.Now().Add(-2*time.Hour))

	refused := body("Unauthorized", "not_authenticated", "Authentication failed", "")
	const asked, invalid = "Bearer", `Bearer error="invalid_token"`
	for name, tt := range map[string]struct{ header, want, challenge string }{
		"none":                {"", refused, asked},
		"another scheme":      {"Basic YW5uOmFubg==", refused, asked},
		"the scheme alone":    {"Bearer", refused, invalid},
		"no token":            {"Bearer ", refused, invalid},
		"rubbish":             {"Bearer rubbish", refused, invalid},
		"bytes":               {"Bearer \xff\xfe", refused, invalid},
		"very long":           {"Bearer " + strings.Repeat("a", 9000), refused, invalid},
		"alg none":            {"Bearer " + unsigned, refused, invalid},
		"another key":         {"Bearer " + other, refused, invalid},
		"no signature":        {"Bearer " + parts[0] + "." + parts[1] + ".", refused, invalid},
		"expired":             {"Bearer " + old, body("Unauthorized", "token_expired", "Authentication failed", ""), invalid},
		"expired, other key":  {"Bearer " + oldOther, refused, invalid},
		"a scheme in letters": {"bEARER rubbish", refused, invalid},
	} {
		for _, path := range []string{"/v1/me", "/v1/conversations/x/messages"} {
			q := request{method: GET, path: path, header: http.Header{}}
			if tt.header != "" {
				q.header.Set("Authorization", tt.header)
			}
			a := f.do(q)
			check(t, name, a, tt.want)
			if got := a.header.Get("WWW-Authenticate"); got != tt.challenge {
				t.Errorf("%s: WWW-Authenticate %q, want %q", name, got, tt.challenge)
			}
		}
	}
	if a := f.do(request{method: GET, path: "/v1/me", header: http.Header{"Authorization": {"bearer  " + good}}}); a.status != 200 {
		t.Errorf("a scheme in small letters: %d %s", a.status, a.body)
	}
	for _, token := range []string{good, other, old} {
		if strings.Contains(f.log.String(), token) {
			t.Error("a token is in the log")
		}
	}
	// Nobody came into being by a token that does not count.
	a := f.do(request{method: GET, path: "/v1/users?ids=ann", token: f.token("bob")})
	if strings.Count(a.body, `"id"`) != 1 {
		t.Errorf("users: %s", a.body)
	}
}

// TestEveryRouteAsksWho sends nothing that signs in to each line of the table.
func TestEveryRouteAsksWho(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	open := map[string]bool{"/healthz": true, "/readyz": true, "/metrics": true, "/openapi.json": true, "/docs": true}
	for _, rt := range routes {
		a := f.do(request{method: rt.method, path: strings.NewReplacer("{id}", "x", "{user_id}", "y").Replace(rt.path), body: `{`})
		if (a.status == 200) != open[rt.path] || (a.status == 401) == open[rt.path] {
			t.Errorf("%s %s without a token: %d %s", rt.method, rt.path, a.status, a.body)
		}
	}
}

func TestAPIKey(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		f := start(t, db, nil)
		ask := func(key, user string) answer {
			q := request{method: GET, path: "/v1/me", header: http.Header{"X-Api-Key": {key}}}
			if user != "" {
				q.header.Set("X-Parley-User", user)
			}
			return f.do(q)
		}
		var me auth.User
		if a := ask(apiKey, "app:7 ünal"); a.status != 200 || json.Unmarshal([]byte(a.body), &me) != nil || me.ID != "app:7 ünal" || me.Role != auth.RoleUser {
			t.Errorf("a user made by a key: %d %s", a.status, a.body)
		}
		// Who is somebody already stays what he is.
		admin := f.mint(auth.Claims{Sub: "root", Name: "Root", Role: auth.RoleAdmin, TTL: time.Hour}, secret, time.Now())
		if a := f.do(request{method: GET, path: "/v1/me", token: admin}); a.status != 200 {
			t.Fatalf("an admin: %d %s", a.status, a.body)
		}
		if a := ask(apiKey, "root"); a.status != 200 || json.Unmarshal([]byte(a.body), &me) != nil || me.Role != auth.RoleAdmin || me.DisplayName != "Root" {
			t.Errorf("an admin by a key: %d %s", a.status, a.body)
		}

		nobody := body("Bad Request", "bad_request", "X-Parley-User must name the user to act for.", "")
		check(t, "a key for nobody", ask(apiKey, ""), nobody)
		check(t, "a key for a long id", ask(apiKey, strings.Repeat("a", 129)), nobody)
		check(t, "a key for bytes", ask(apiKey, "\xff\xfe"), nobody)
		refused := body("Unauthorized", "not_authenticated", "Authentication failed", "")
		a := ask(apiKey+"x", "ann")
		check(t, "another key", a, refused)
		if a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("another key: %v", a.header)
		}
		// A key that does not count is not made good by a token that does.
		a = f.do(request{method: GET, path: "/v1/me", token: f.token("ann"), header: http.Header{"X-Api-Key": {"another"}, "X-Parley-User": {"ann"}}})
		check(t, "another key beside a token", a, refused)
		if log := f.log.String(); strings.Contains(log, apiKey) {
			t.Error("a key is in the log")
		}
	})
}

func TestWithoutAPIKeys(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), func(p *Parts) { p.Keys = auth.APIKeys{} })
	a := f.do(request{method: GET, path: "/v1/me", header: http.Header{"X-Api-Key": {apiKey}, "X-Parley-User": {"ann"}}})
	check(t, "a key where there are none", a, body("Unauthorized", "not_authenticated", "Authentication failed", ""))
}
