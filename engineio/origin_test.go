package engineio

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// upgradeHeader is what a request for a WebSocket has.
var upgradeHeader = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}

// With credentials there is never a wildcard, on no transport and in no answer, and only pages of the list may send them.
func TestCredentials(t *testing.T) {
	const a = "https://a.example"
	ts := serve(t, Options{AllowedOrigins: []string{a}, Credentials: true}, nil)
	own := ts.http.URL
	for _, c := range []struct {
		method, query, origin string
		header                []string
		status                int
		credentials           string
	}{
		{"GET", "transport=polling", a, nil, 200, "true"},
		{"GET", "transport=polling", strings.ToUpper(a), nil, 200, "true"},
		{"OPTIONS", "transport=polling", a, nil, 204, "true"},
		{"GET", "transport=nothing", a, nil, 400, "true"},
		{"GET", "transport=polling", own, nil, 200, ""},
		{"GET", "transport=polling", "", nil, 200, ""},
		{"GET", "transport=polling", "https://b.example", nil, 403, ""},
		{"OPTIONS", "transport=polling", "https://b.example", nil, 403, ""},
		{"GET", "transport=websocket", "https://b.example", upgradeHeader, 403, ""},
		{"GET", "transport=websocket", "null", upgradeHeader, 403, ""},
	} {
		header := c.header
		if c.origin != "" {
			header = append([]string{"Origin", c.origin}, header...)
		}
		status, body, h := ts.request(c.method, "EIO=4&"+c.query, "", header...)
		if status != c.status || h.Get(allowCredentials) != c.credentials || h.Get(allowOrigin) == "*" || h.Get("Vary") != "Origin" {
			t.Errorf("%s %s from %q: %d %q %v, want %d and credentials %q", c.method, c.query, c.origin, status, body, h, c.status, c.credentials)
		}
		if c.credentials == "true" && h.Get(allowOrigin) != c.origin {
			t.Errorf("%s %s from %q: allowed for %q", c.method, c.query, c.origin, h.Get(allowOrigin))
		}
	}
}

func TestCookie(t *testing.T) {
	template := &http.Cookie{Path: "/engine.io/", Secure: true, Value: "not this", MaxAge: 60}
	ts := serve(t, Options{Cookie: template}, nil)
	want := func(h http.Header, sid string) {
		t.Helper()
		cookies := (&http.Response{Header: h}).Cookies()
		if len(cookies) != 1 || cookies[0].String() != "io="+sid+"; Path=/engine.io/; Max-Age=60; HttpOnly; Secure; SameSite=Lax" {
			t.Errorf("cookies %v for the session %q", cookies, sid)
		}
	}
	status, body, h := ts.request("GET", "EIO=4&transport=polling", "")
	if status != 200 || h.Get(allowOrigin) != "" {
		t.Errorf("handshake: %d %q %v", status, body, h)
	}
	want(h, ts.session(0).conn.ID())
	if _, _, h := ts.request("POST", "EIO=4&transport=polling&sid="+ts.session(0).conn.ID(), "4x"); h.Get("Set-Cookie") != "" {
		t.Errorf("cookie with a POST: %v", h)
	}

	conn, err := net.Dial("tcp", ts.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, conn, bufio.NewReader(conn)}
	res, err := http.ReadResponse(p.r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("upgrade: %v, %v", res, err)
	}
	want(res.Header, ts.session(1).conn.ID())
	if _, data := p.read(); !strings.HasPrefix(data, `0{"sid":"`) {
		t.Errorf("first frame %q", data)
	}

	// Where cookies are in play other sites' pages must be listed.
	if status, _, _ := ts.request("GET", "EIO=4&transport=polling", "", "Origin", ts.http.URL); status != 200 {
		t.Errorf("from its own page: %d", status)
	}
	if status, _, _ := ts.request("GET", "EIO=4&transport=websocket", "", append([]string{"Origin", "https://b.example"}, upgradeHeader...)...); status != 403 {
		t.Errorf("from another site's page: %d", status)
	}
	if template.Name != "" || template.HttpOnly {
		t.Errorf("the caller's template was changed: %v", template)
	}
}

func TestUnsafeOptions(t *testing.T) {
	for want, opts := range map[string]Options{
		"AllowedOrigins":  {Credentials: true},
		"each by name":    {Credentials: true, AllowedOrigins: []string{"https://a.example", "*"}},
		"SameSite is No":  {Cookie: &http.Cookie{SameSite: http.SameSiteNoneMode}},
		"Options.Cookie:": {Cookie: &http.Cookie{Name: "a b"}},
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("NewServer(%+v) panics with %q, want %q in it", opts, got, want)
				}
			}()
			NewServer(opts, nil)
		}()
	}
}
