package engineio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Server answers the requests of Engine.IO clients. It is an http.Handler for [Options.Path].
type Server struct {
	opts      Options
	open      func(*Conn, *http.Request) Session
	handshake string // the open packet behind the session id and the upgrades

	started time.Time
	second  atomic.Uint32 // since started, as of the last tick
	shards  []*shard
	turn    atomic.Uint32 // of the shards, for new connections

	mu        sync.Mutex
	closing   bool
	present   int // connections that have been admitted and not released
	addresses map[string]*address

	conns    sync.WaitGroup // connections, and every goroutine that serves one
	loops    sync.WaitGroup // flushers and the clock
	quit     chan struct{}  // ends the clock
	quitOnce sync.Once
}

// NewServer returns a server and starts its goroutines, which [Server.Shutdown] ends. open is called for each new connection, before
// anything is read from it, and returns its session; what it sends follows the handshake.
func NewServer(opts Options, open func(*Conn, *http.Request) Session) *Server {
	opts = opts.withDefaults()
	opts.check()
	s := &Server{
		opts: opts,
		open: open,
		handshake: fmt.Sprintf(`,"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}`,
			opts.PingInterval.Milliseconds(), opts.PingTimeout.Milliseconds(), opts.MaxPayload),
		started:   time.Now(),
		addresses: map[string]*address{},
		quit:      make(chan struct{}),
	}
	tick := min(max(min(opts.PingInterval, opts.PingTimeout)/50, 5*time.Millisecond), time.Second)
	for range runtime.GOMAXPROCS(0) {
		sh := newShard()
		sh.wheel.tick = tick
		s.shards = append(s.shards, sh)
		s.loops.Go(sh.run)
	}
	s.loops.Go(func() { s.clock(tick) })
	return s
}

// now is the time since the server started, on the monotonic clock.
func (s *Server) now() time.Duration { return time.Since(s.started) }

// clock turns the wheels.
func (s *Server) clock(tick time.Duration) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var due []*Conn
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		s.second.Store(uint32(s.now() / time.Second))
		for _, sh := range s.shards {
			now := s.now()
			due = sh.wheel.take(due[:0], now)
			for i, c := range due {
				due[i] = nil
				c.look(now)
			}
		}
	}
}

// A refusal is an error answer, in the form of the official server.
type refusal struct {
	status  int
	code    int
	message string
}

var (
	unknownTransport   = refusal{http.StatusBadRequest, 0, "Transport unknown"}
	unknownSID         = refusal{http.StatusBadRequest, 1, "Session ID unknown"}
	badHandshakeMethod = refusal{http.StatusBadRequest, 2, "Bad handshake method"}
	badRequest         = refusal{http.StatusBadRequest, 3, "Bad request"}
	forbidden          = refusal{http.StatusForbidden, 4, "Forbidden"}
	unsupportedVersion = refusal{http.StatusBadRequest, 5, "Unsupported protocol version"}
	payloadTooBig      = refusal{http.StatusRequestEntityTooLarge, 3, "Payload too big"}
)

func refuse(w http.ResponseWriter, r *http.Request, why refusal) {
	dismissBody(w, r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(why.status)
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%q}`, why.code, why.message) // The client may be gone.
}

// bodyGrace is how long a client may go on sending a body that nobody wants, so that it sees the answer before its connection is closed.
const bodyGrace = time.Second

// dismissBody has the connection closed after the answer if the request has a body, and does not wait for the rest of it: net/http would read
// some, for as long as that takes.
func dismissBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyGrace)) // A server that cannot has its own deadline.
}

// ServeHTTP answers a handshake, a poll, a POST, a WebSocket or a preflight.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != s.opts.Path && r.URL.Path+"/" != s.opts.Path {
		http.NotFound(w, r)
		return
	}
	if !s.allow(w, r) {
		refuse(w, r, forbidden)
		return
	}
	if r.Method == http.MethodOptions {
		preflight(w, r)
		return
	}
	query := r.URL.Query()
	transport, sid := query.Get("transport"), query.Get("sid")
	upgrade := isWebSocketUpgrade(r)
	switch {
	case transport != "polling" && transport != "websocket":
		refuse(w, r, unknownTransport)
	case sid == "" && r.Method != http.MethodGet:
		refuse(w, r, badHandshakeMethod)
	case r.Method == http.MethodGet && r.ContentLength != 0:
		refuse(w, r, badRequest) // Behind it net/http would not see a poll being aborted.
	case sid == "" && len(r.URL.RawQuery) > s.opts.QueryBytesMax:
		refuse(w, r, badRequest)
	case upgrade != (transport == "websocket"):
		refuse(w, r, badRequest)
	case sid == "" && query.Get("EIO") != "4":
		refuse(w, r, unsupportedVersion)
	case sid == "" && upgrade:
		s.openWebSocket(w, r)
	case sid == "":
		s.openPolling(w, r)
	default:
		c := s.lookup(sid)
		if c != nil {
			c.polled()
		}
		switch {
		case c == nil && !upgrade && s.elsewhere(w, r, sid):
		case c == nil:
			refuse(w, r, unknownSID)
		case upgrade:
			s.upgradeConn(c, w, r)
		case r.Method == http.MethodGet:
			c.servePoll(w, r)
		case r.Method == http.MethodPost:
			c.servePost(w, r)
		default:
			refuse(w, r, badRequest)
		}
	}
}

// elsewhere asks Options.Elsewhere about a request for a session that is not one of this server, and reports whether it has answered. Who
// answers sets the CORS headers.
func (s *Server) elsewhere(w http.ResponseWriter, r *http.Request, sid string) bool {
	if s.opts.Elsewhere == nil || s.opts.SIDPrefix == "" || strings.HasPrefix(sid, s.opts.SIDPrefix) {
		return false
	}
	for _, name := range []string{allowOrigin, allowCredentials, "Vary"} {
		w.Header().Del(name)
	}
	if s.opts.Elsewhere(w, r) {
		return true
	}
	s.allow(w, r) // It was allowed before.
	return false
}

// newConn makes a connection that has been admitted, and its session.
func (s *Server) newConn(r *http.Request, ws wsConn, from *address) *Conn {
	sh := s.shards[int(s.turn.Add(1))%len(s.shards)]
	c := &Conn{srv: s, shard: sh, id: s.newSID(), remote: r.RemoteAddr, address: from, ws: ws}
	sh.counts.opened.Add(1)
	if ws.nc != nil {
		sh.counts.websockets.Add(1)
	} else {
		sh.counts.pollings.Add(1)
	}
	sh.mu.Lock()
	sh.conns[c.id] = c
	sh.mu.Unlock()
	c.openSession(r)
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing {
		c.CloseFor(ReasonShutdown) // Shutdown may have looked for it too soon.
	}
	return c
}

func (c *Conn) openSession(r *http.Request) {
	c.session = noSession{}
	defer c.recoverPanic()
	c.session = c.srv.open(c, r)
}

// noSession is that of a connection whose session could not be made.
type noSession struct{}

func (noSession) Message([]byte, bool) {}
func (noSession) Close(string)         {}

// newSID returns a session id of 128 random bits behind the prefix.
func (s *Server) newSID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // It never fails.
	return s.opts.SIDPrefix + base64.RawURLEncoding.EncodeToString(id[:])
}

// lookup returns the connection with this id, if it has not ended.
func (s *Server) lookup(sid string) *Conn {
	for _, sh := range s.shards {
		sh.mu.Lock()
		c := sh.conns[sid]
		sh.mu.Unlock()
		if c != nil {
			return c
		}
	}
	return nil
}

// forget ends what the server keeps of c. A second time changes nothing.
func (s *shard) forget(c *Conn) {
	s.mu.Lock()
	known := s.conns[c.id] == c
	delete(s.conns, c.id)
	s.mu.Unlock()
	if known {
		c.srv.release(c.address)
	}
}

// openPacket returns the handshake (protocol 4, "Handshake").
func (s *Server) openPacket(c *Conn, upgrades string) string {
	return `0{"sid":"` + c.id + `","upgrades":[` + upgrades + `]` + s.handshake
}

func (s *Server) openWebSocket(w http.ResponseWriter, r *http.Request) {
	from, ok := s.admit(w, r)
	if !ok {
		return
	}
	ws, early, response, ok := acceptWebSocket(w, r)
	if !ok {
		s.release(from)
		s.conns.Done()
		return
	}
	c := s.newConn(r, ws, from)
	if cookie := s.cookie(c.id); cookie != "" {
		response = append(append(append(response, "Set-Cookie: "...), cookie...), "\r\n"...)
	}
	response = append(append(response, "\r\n"...), packetFrame(s.openPacket(c, "")).wire...)
	if ws.write(response, s.opts.WriteTimeout) != nil {
		c.abort(ReasonTransportError) // The reader finds the connection closed.
	}
	c.opened()
	s.conns.Add(1)
	// A goroutine of its own, with a small stack: that of net/http has grown, and ends here.
	go newReader(c, ws, early).read()
}

// upgradeConn accepts a WebSocket for a connection that polls. One that comes too late or too often is accepted and closed, as the
// official server does, since a client's WebSocket hides the answer to a refused handshake.
func (s *Server) upgradeConn(c *Conn, w http.ResponseWriter, r *http.Request) {
	ws, early, response, ok := acceptWebSocket(w, r)
	if !ok {
		return
	}
	response = append(response, "\r\n"...)
	c.mu.Lock()
	free := c.state == stateOpen && c.ws.nc == nil && c.candidate == nil
	if free {
		c.candidate = ws.nc
		s.conns.Add(1)
	}
	c.mu.Unlock()
	if !free {
		_ = ws.write(append(response, wsClose.wire...), s.opts.WriteTimeout) // It is closed in any case.
		_ = ws.nc.Close()                                                    // As above.
		return
	}
	_ = ws.write(response, s.opts.WriteTimeout) // The reader finds it broken.
	go newReader(c, ws, early).upgrade()
}

// Shutdown refuses new connections, closes those that there are, evenly over Options.ShutdownSpread, and waits for them to be gone; the
// official client then connects again. When ctx ends, what is left is cut and ctx's error returned. No goroutine of the server remains then,
// unless a Session's method does not return within a second of the cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.closeAll(ctx)
	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range s.all() {
			c.abort(ReasonShutdown)
		}
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
	s.quitOnce.Do(func() { close(s.quit) })
	for _, sh := range s.shards {
		sh.stop()
	}
	s.loops.Wait()
	for _, c := range s.all() {
		c.abort(ReasonShutdown) // Polling connections that nobody asked for any more.
	}
	return err
}

// closeAll closes every connection, one after the other so that it takes Options.ShutdownSpread.
func (s *Server) closeAll(ctx context.Context) {
	spread := s.opts.ShutdownSpread
	conns := s.all()
	if len(conns) == 0 {
		return
	}
	pace := time.NewTicker(max(spread/100, time.Millisecond))
	defer pace.Stop()
	begun := s.now()
	for i, c := range conns {
		for spread > 0 && s.now()-begun < spread*time.Duration(i)/time.Duration(len(conns)) && ctx.Err() == nil {
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
		c.CloseFor(ReasonShutdown)
	}
}

func (s *Server) all() []*Conn {
	var conns []*Conn
	for _, sh := range s.shards {
		sh.mu.Lock()
		for _, c := range sh.conns {
			conns = append(conns, c)
		}
		sh.mu.Unlock()
	}
	return conns
}

// Stats is what a server has done since its start, but for the fields named as present.
type Stats struct {
	WebSockets   int64 // present connections over WebSocket
	Pollings     int64 // present connections over long polling
	QueueBytes   int64 // present, not yet written to any connection
	Opened       int64 // connections
	Upgraded     int64 // from polling to WebSocket
	PacketsIn    int64
	BytesIn      int64 // of packets, without framing
	PacketsOut   int64
	BytesOut     int64 // as written, framing included
	Dropped      int64 // droppable and volatile frames
	SlowCloses   int64
	PingTimeouts int64
	ParseErrors  int64 // breaches of either protocol
	Refused      int64 // connections, for Options.ConnsMax, Options.AddressConnsMax or Server.Shutdown
	Unpolled     int64 // connections closed for Options.FirstPollTimeout
	Panics       int64
}

// Stats returns a snapshot. It visits every connection.
func (s *Server) Stats() Stats {
	var t Stats
	for _, sh := range s.shards {
		n := &sh.counts
		t.WebSockets += n.websockets.Load()
		t.Pollings += n.pollings.Load()
		t.Opened += n.opened.Load()
		t.Upgraded += n.upgraded.Load()
		t.PacketsIn += n.packetsIn.Load()
		t.BytesIn += n.bytesIn.Load()
		t.PacketsOut += n.packetsOut.Load()
		t.BytesOut += n.bytesOut.Load()
		t.Dropped += n.dropped.Load()
		t.SlowCloses += n.slow.Load()
		t.PingTimeouts += n.pingTimeouts.Load()
		t.ParseErrors += n.parseErrors.Load()
		t.Refused += n.refused.Load()
		t.Unpolled += n.unpolled.Load()
		t.Panics += n.panics.Load()
	}
	for _, c := range s.all() {
		c.mu.Lock()
		t.QueueBytes += int64(c.queueBytes)
		c.mu.Unlock()
	}
	return t
}
