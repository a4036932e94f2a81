package gateway

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"parley/internal/config"
)

func TestPace(t *testing.T) {
	l := newLimits(config.Gateway{EventsPerSecond: 10, EventsBurst: 5})
	now := time.Unix(1000, 0)
	var p pace
	for i := range 5 {
		if wait := p.take(l, now); wait != 0 {
			t.Fatalf("event %d of the burst waits %v", i, wait)
		}
	}
	for range 3 { // who is refused owes nothing for it
		if wait := p.take(l, now); wait != 100*time.Millisecond {
			t.Errorf("beyond the burst the wait is %v, want 100 ms", wait)
		}
	}
	for i := range 20 {
		now = now.Add(100 * time.Millisecond)
		if wait := p.take(l, now); wait != 0 {
			t.Errorf("event %d at the rate waits %v", i, wait)
		}
		if wait := p.take(l, now); wait != 100*time.Millisecond {
			t.Errorf("one more than the rate waits %v, want 100 ms", wait)
		}
	}
	now = now.Add(time.Hour)
	for i := range 6 {
		if wait := p.take(l, now); (wait > 0) != (i == 5) {
			t.Errorf("after an hour event %d waits %v: want a burst of 5 and no more", i, wait)
		}
	}
}

func TestAddressOf(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}
	for _, c := range []struct {
		trusted   []netip.Prefix
		remote    string
		forwarded []string
		want      string
	}{
		{nil, "203.0.113.7:4711", nil, "203.0.113.7"},
		{nil, "203.0.113.7:4711", []string{"198.51.100.1"}, "203.0.113.7"}, // nobody is believed
		{nil, "[2001:db8:1:2:3:4:5:6]:80", nil, "2001:db8:1:2::/64"},
		{nil, "[::ffff:203.0.113.7]:80", nil, "203.0.113.7"},
		{nil, "[fe80::1%eth0]:80", nil, "fe80::/64"},
		{nil, "@", nil, "@"}, // a Unix socket
		{proxies, "10.1.2.3:80", nil, "10.1.2.3"},
		{proxies, "10.1.2.3:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{proxies, "10.1.2.3:80", []string{"192.0.2.1, 198.51.100.1, 10.9.9.9"}, "198.51.100.1"},   // 192.0.2.1 is the client's invention
		{proxies, "10.1.2.3:80", []string{"192.0.2.1", "198.51.100.1,10.9.9.9"}, "198.51.100.1"},  // two headers are one list
		{proxies, "203.0.113.7:80", []string{"198.51.100.1"}, "203.0.113.7"},                      // not by a proxy of ours
		{proxies, "10.1.2.3:80", []string{"198.51.100.1, nonsense"}, "10.1.2.3"},                  // as far as can be read
		{proxies, "[2001:db8:ffff::1]:80", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"}, // IPv6 throughout
		{proxies, "10.1.2.3:80", []string{"10.4.4.4, 10.5.5.5"}, "10.4.4.4"},                      // from within
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := addressOf(c.trusted)(r); got != c.want {
			t.Errorf("from %s for %v: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}
