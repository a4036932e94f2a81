package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"parley/internal/config"
	"parley/internal/problem"
)

// limits are what one user, and one connection, may do.
type limits struct {
	userConns int           // 0: any number
	every     time.Duration // the time between two events of a connection in the long run; 0: any number of events
	burst     time.Duration // what a connection that was quiet may be ahead of that
}

func newLimits(cfg config.Gateway) limits {
	l := limits{userConns: cfg.UserConnsMax}
	if cfg.EventsPerSecond > 0 {
		l.every = time.Second / time.Duration(cfg.EventsPerSecond)
		l.burst = l.every * time.Duration(cfg.EventsBurst)
	}
	return l
}

// pace measures the events of a connection by the generic cell rate algorithm (ITU-T I.371): it is when the next event
// would come that keeps to the rate.
type pace struct{ next int64 } // in nanoseconds since 1970

// take counts an event, or returns how long from now one will be allowed.
func (p *pace) take(l limits, now time.Time) (wait time.Duration) {
	next := max(p.next, now.UnixNano()) + int64(l.every)
	if wait = time.Duration(next-now.UnixNano()) - l.burst; wait > 0 {
		return wait
	}
	p.next = next
	return 0
}

var errTooManyConnections = problem.New(problem.RateLimited, "This user has too many connections.")

// addressOf returns the client address of a request, for counting: of IPv6 the network of 64 bits, which is what one site is
// given. Behind trusted proxies it is the last address in X-Forwarded-For that is none of theirs: what stands before
// that is the client's own invention.
func addressOf(trusted []netip.Prefix) func(*http.Request) string {
	isTrusted := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) string {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			return host
		}
		a = a.Unmap()
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0 && isTrusted(a); i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			a = hop.Unmap()
		}
		if a.Is6() {
			network, _ := a.WithZone("").Prefix(64) // of 128 bits there are 64
			return network.String()
		}
		return a.String()
	}
}
