package gateway

import (
	"context"
	"runtime/debug"
	"time"

	"parley/internal/problem"
)

// Run keeps the sessions' deadlines until ctx ends: sockets that do not sign in, tokens that end, and
// cursors for those who got something.
func (g *Gateway) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var all []*session
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		g.mu.Lock()
		all = append(all[:0], g.sessions...)
		g.mu.Unlock()
		now := g.now()
		g.recovery.expire(now)
		for i, s := range all {
			g.sweep(s, now)
			all[i] = nil
		}
	}
}

type tokenExpiring struct {
	ExpiresInMS int64 `json:"expires_in_ms"`
}

// sweep does what is due for one session.
func (g *Gateway) sweep(s *session, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			g.metrics.panics.Inc()
			g.parts.Log.Error("a session panicked", "panic", p, "stack", string(debug.Stack()))
			go s.socket.Disconnect(true) // its locks may be held
		}
	}()
	s.mu.Lock()
	phase := s.phase
	left := time.Unix(s.expires, 0).Sub(now)
	warn := phase == live && s.expires > 0 && left <= tokenWarning && !s.warned
	if warn {
		s.warned = true
	}
	tell := phase == live && !s.behind && s.fresh > 0 && (s.fresh >= cursorEvents || now.Unix()-s.cursorAt >= cursorSeconds)
	if tell {
		s.fresh, s.cursorAt = 0, now.Unix()
	}
	if len(s.trail.marks) > 0 {
		s.trail.confirm(s.out.Sent())
	}
	s.mu.Unlock()

	switch {
	case phase == anonymous && time.Duration(now.UnixNano()-s.began) >= g.authTimeout:
		s.socket.Disconnect(true)
	case phase == live && left <= 0:
		g.failSignIn(s, problem.New(problem.TokenExpired, problem.AuthenticationFailed))
		s.socket.Disconnect(false)
	case warn:
		s.emit("token-expiring", tokenExpiring{max(left.Milliseconds(), 0)})
	}
	if tell {
		g.tellCursor(s)
	}
}
