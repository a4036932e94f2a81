package engineio

import (
	"net/http"
	"net/netip"
)

// retryAfterSeconds is what a client is told that finds no room.
const retryAfterSeconds = "5"

var (
	tooManyConns        = refusal{http.StatusServiceUnavailable, 3, "Too many connections"}
	tooManyAddressConns = refusal{http.StatusTooManyRequests, 3, "Too many connections from this address"}
	shuttingDown        = refusal{http.StatusServiceUnavailable, 3, "Server is shutting down"}
)

// An address has connections. It is guarded by Server.mu.
type address struct {
	name  string
	conns int
}

// admit counts a connection that r asks for, which release takes back, or refuses it. address is nil if addresses are not counted.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (from *address, ok bool) {
	name := ""
	if s.opts.AddressConnsMax > 0 {
		name = s.opts.Address(r)
	}
	from, why := s.count(name)
	if why == nil {
		return from, true
	}
	s.shards[0].counts.refused.Add(1)
	w.Header().Set("Retry-After", retryAfterSeconds)
	refuse(w, r, *why)
	return nil, false
}

func (s *Server) count(name string) (*address, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.addresses[name]
	switch {
	case s.closing:
		return nil, &shuttingDown
	case s.opts.ConnsMax > 0 && s.present >= s.opts.ConnsMax:
		return nil, &tooManyConns
	case from != nil && from.conns >= s.opts.AddressConnsMax:
		return nil, &tooManyAddressConns
	}
	if from == nil && name != "" {
		from = &address{name: name}
		s.addresses[name] = from
	}
	if from != nil {
		from.conns++
	}
	s.present++
	s.conns.Add(1)
	return from, nil
}

// release gives the place of a connection back, of which nothing is left but goroutines that end.
func (s *Server) release(from *address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.present--
	if from == nil {
		return
	}
	if from.conns--; from.conns == 0 {
		delete(s.addresses, from.name)
	}
}

// addressOf is the default of Options.Address.
func addressOf(r *http.Request) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := from.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, _ := ip.Prefix(64) // It has as many bits.
	return network.String()
}
