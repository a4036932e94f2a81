package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"parley/internal/problem"
)

// A jwksServer serves what the test tells it to.
type jwksServer struct {
	*httptest.Server
	fetches atomic.Int64

	mu      sync.Mutex
	body    []byte
	status  int
	stalled chan struct{}
}

func newJWKSServer(t testing.TB) *jwksServer {
	s := &jwksServer{status: http.StatusOK, body: []byte(`{"keys":[]}`)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		s.mu.Lock()
		status, body, stalled := s.status, s.body, s.stalled
		s.mu.Unlock()
		if stalled != nil {
			select {
			case <-stalled:
			case <-r.Context().Done():
			}
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "http://id.example.com/jwks")
		}
		w.WriteHeader(status)
		w.Write(body)
	}))
	t.Cleanup(s.Server.Close)
	return s
}

// serve sets the keys: a kid (empty: none) and a public key in turn.
func (s *jwksServer) serve(t testing.TB, keys ...any) {
	t.Helper()
	var set jwkset.JWKSMarshal
	for i := 0; i < len(keys); i += 2 {
		set.Keys = append(set.Keys, jwkOf(t, keys[i].(string), keys[i+1], jwkset.JWKMetadataOptions{}))
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	s.answer(http.StatusOK, b)
}

func jwkOf(t testing.TB, kid string, public crypto.PublicKey, m jwkset.JWKMetadataOptions) jwkset.JWKMarshal {
	t.Helper()
	m.KID = kid
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{
		Marshal: jwkset.JWKMarshalOptions{Private: true}, Metadata: m,
	})
	if err != nil {
		t.Fatal(err)
	}
	return k.Marshal()
}

func (s *jwksServer) answer(status int, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

// stall makes requests hang until the returned function is called.
func (s *jwksServer) stall() (release func()) {
	c := make(chan struct{})
	s.mu.Lock()
	s.stalled = c
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.stalled = nil
		s.mu.Unlock()
		close(c)
	}
}

// quick makes the gap between fetches short enough for a test whose clock stands still.
func quick(v *Verifier) *Verifier {
	v.jwks.mu.Lock()
	defer v.jwks.mu.Unlock()
	v.jwks.gap = 20 * time.Millisecond
	return v
}

func TestJWKSRotation(t *testing.T) {
	s := signers()
	c := newClock()
	server := newJWKSServer(t)
	server.serve(t, "r1", &s.rsa.PublicKey, "e1", &s.p256.PublicKey, "d1", s.ed.Public())
	v := quick(verifier(t, VerifierOptions{JWKSURL: server.URL, Now: c.now}))
	old := sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "r1")
	next := sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r2")
	accepted(t, v, "RS256", old)
	accepted(t, v, "ES256", sign(t, jwt.SigningMethodES256, s.p256, good(), "kid", "e1"))
	accepted(t, v, "EdDSA", sign(t, jwt.SigningMethodEdDSA, s.ed, good(), "kid", "d1"))
	refused(t, v, "expired", sign(t, jwt.SigningMethodRS256, s.rsa, good(jwt.MapClaims{"exp": 1}), "kid", "r1"), problem.TokenExpired)

	before := server.fetches.Load()
	refused(t, v, "known kid, wrong signature", sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r1"), problem.NotAuthenticated)
	if n := server.fetches.Load(); n != before {
		t.Errorf("a wrong signature under a known kid caused %d fetches", n-before)
	}
	refused(t, v, "not there yet", next, problem.NotAuthenticated)
	server.serve(t, "r1", &s.rsa.PublicKey, "r2", &s.rsa2.PublicKey)
	accepted(t, v, "the new key, at its first token", next)
	accepted(t, v, "the old key beside it", old)

	// The old key goes: noticed once the keys are old, while the request that notices still gets the old ones.
	server.serve(t, "r2", &s.rsa2.PublicKey)
	c.add(jwksAgeMax + time.Second)
	long := sign(t, jwt.SigningMethodRS256, s.rsa, good(jwt.MapClaims{"exp": start.Add(24 * time.Hour).Unix()}), "kid", "r1")
	accepted(t, v, "the request that notices", long)
	eventually(t, "the withdrawn key is no longer accepted", func() bool {
		_, err := v.Verify(context.Background(), long)
		return err != nil
	})
	accepted(t, v, "the key that stayed", next)
}

// Tokens with invented key ids, however many, must not keep a new key from being found.
func TestJWKSFloodOfUnknownKeys(t *testing.T) {
	s := signers()
	server := newJWKSServer(t)
	server.serve(t, "r1", &s.rsa.PublicKey)
	v := verifier(t, VerifierOptions{JWKSURL: server.URL, Now: newClock().now})
	const gap = 100 * time.Millisecond
	v.jwks.mu.Lock()
	v.jwks.gap = gap
	v.jwks.mu.Unlock()
	accepted(t, v, "before", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "r1"))

	forged := make([]string, 64)
	for i := range forged {
		forged[i] = sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", fmt.Sprint("forged", i))
	}
	began, before := time.Now(), server.fetches.Load()
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for _, token := range forged {
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := v.Verify(context.Background(), token); err == nil {
						t.Error("a forged token was accepted")
					}
				}
			}
		})
	}
	eventually(t, "the flood has caused fetches", func() bool { return server.fetches.Load() > before+1 })
	server.serve(t, "r1", &s.rsa.PublicKey, "r2", &s.rsa2.PublicKey)
	accepted(t, v, "the new key, at its first token in the flood", sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r2"))
	accepted(t, v, "a known key in the flood", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "r1"))
	close(stop)
	flood.Wait()
	if n, most := server.fetches.Load()-before, int64(time.Since(began)/gap)+2; n > most {
		t.Errorf("%d fetches in %v, want at most one in %v", n, time.Since(began), gap)
	}
}

func TestJWKSWaitersAreBounded(t *testing.T) {
	server := newJWKSServer(t)
	release := server.stall()
	v := quick(verifier(t, VerifierOptions{JWKSURL: server.URL}))
	ctx, cancel := context.WithCancel(context.Background())
	token := sign(t, jwt.SigningMethodRS256, signers().rsa, good(), "kid", "x")
	var all sync.WaitGroup
	for range jwksWaiterMax {
		all.Go(func() {
			if _, err := v.Verify(ctx, token); err == nil {
				t.Error("accepted")
			}
		})
	}
	eventually(t, "all wait", func() bool {
		v.jwks.mu.Lock()
		defer v.jwks.mu.Unlock()
		return v.jwks.waiters == jwksWaiterMax
	})
	if _, err := v.Verify(ctx, token); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one more: %v, want a refusal at once", err)
	}
	cancel()
	all.Wait()
	release()
}

func TestJWKSEndpointDown(t *testing.T) {
	s := signers()
	c := newClock()
	server := newJWKSServer(t)
	good1 := sign(t, jwt.SigningMethodRS256, s.rsa, good(jwt.MapClaims{"exp": start.Add(24 * time.Hour).Unix()}), "kid", "r1")

	server.answer(http.StatusInternalServerError, nil)
	v := quick(verifier(t, VerifierOptions{JWKSURL: server.URL, Now: c.now})) // Starts all the same.
	refused(t, v, "down at the start", good1, problem.NotAuthenticated)
	if _, err := v.Verify(context.Background(), good1); err == nil || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("the cause for the log: %v, want that keys are unavailable", err)
	}
	server.serve(t, "r1", &s.rsa.PublicKey)
	accepted(t, v, "up", good1)

	for name, down := range map[string]func(){
		"500":              func() { server.answer(http.StatusInternalServerError, nil) },
		"a page":           func() { server.answer(http.StatusOK, []byte("<html>")) },
		"no keys":          func() { server.answer(http.StatusOK, []byte(`{"keys":[]}`)) },
		"another document": func() { server.answer(http.StatusOK, []byte(`{"error":"x"}`)) },
		"too much":         func() { server.answer(http.StatusOK, []byte(strings.Repeat(" ", jwksBytesMax)+`{"keys":[]}`)) },
		"to plain http":    func() { server.answer(http.StatusFound, nil) },
	} {
		down()
		before := server.fetches.Load()
		c.add(jwksAgeMax + time.Second)
		accepted(t, v, name+": the request that notices", good1)
		eventually(t, name+": fetched again", func() bool { return server.fetches.Load() > before })
		refused(t, v, name+": an unknown key", sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r9"), problem.NotAuthenticated)
		accepted(t, v, name+": the old keys stay", good1)
	}
	server.answer(http.StatusFound, nil)
	_, err := v.Verify(context.Background(), sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r9"))
	if err == nil || !strings.Contains(err.Error(), "must be https") {
		t.Errorf("a redirect to plain http: %v, want that it is not followed", err)
	}
	server.Server.Close()
	c.add(jwksAgeMax + time.Second)
	accepted(t, v, "gone: the old keys stay", good1)
	refused(t, v, "gone: an unknown key", sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r9"), problem.NotAuthenticated)
	accepted(t, v, "gone: still", good1)
}

func TestJWKSTokenWithoutKID(t *testing.T) {
	s := signers()
	server := newJWKSServer(t)
	server.serve(t, "r1", &s.rsa.PublicKey, "e1", &s.p256.PublicKey)
	v := quick(verifier(t, VerifierOptions{JWKSURL: server.URL}))
	accepted(t, v, "one key of the algorithm", sign(t, jwt.SigningMethodES256, s.p256, good()))
	refused(t, v, "another key", sign(t, jwt.SigningMethodRS256, s.rsa2, good()), problem.NotAuthenticated)
	server.serve(t, "r1", &s.rsa.PublicKey, "", &s.rsa2.PublicKey)
	accepted(t, v, "the second of two, rotated in", sign(t, jwt.SigningMethodRS256, s.rsa2, good()))
	refused(t, v, "a kid that the matching key has not", sign(t, jwt.SigningMethodRS256, s.rsa2, good(), "kid", "r1"), problem.NotAuthenticated)
}

func TestJWKSLeavesUnusableKeysOut(t *testing.T) {
	s := signers()
	server := newJWKSServer(t)
	var set struct {
		Keys []any `json:"keys"`
	}
	add := func(kid string, k crypto.PublicKey, m jwkset.JWKMetadataOptions) {
		set.Keys = append(set.Keys, jwkOf(t, kid, k, m))
	}
	add("symmetric", secret, jwkset.JWKMetadataOptions{})
	add("small", &s.small.PublicKey, jwkset.JWKMetadataOptions{})
	add("p384", &s.p384.PublicKey, jwkset.JWKMetadataOptions{})
	add("rs512", &s.rsa.PublicKey, jwkset.JWKMetadataOptions{ALG: jwkset.AlgRS512})
	add("encryption", &s.rsa.PublicKey, jwkset.JWKMetadataOptions{USE: jwkset.UseEnc})
	set.Keys = append(set.Keys, map[string]any{"kty": "strange"}, 7, nil, map[string]any{"kty": "RSA", "kid": "empty"})
	add("private", s.rsa2, jwkset.JWKMetadataOptions{}) // Its public half is as good as any.
	add("r1", &s.rsa.PublicKey, jwkset.JWKMetadataOptions{ALG: jwkset.AlgRS256, USE: jwkset.UseSig})
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	server.answer(http.StatusOK, b)
	v := quick(verifier(t, VerifierOptions{JWKSURL: server.URL}))
	accepted(t, v, "the good one", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "r1"))
	refused(t, v, "symmetric", sign(t, jwt.SigningMethodHS256, secret, good(), "kid", "symmetric"), problem.NotAuthenticated)
	refused(t, v, "small", sign(t, jwt.SigningMethodRS256, s.small, good(), "kid", "small"), problem.NotAuthenticated)
	refused(t, v, "for another algorithm", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "rs512"), problem.NotAuthenticated)
	refused(t, v, "for encryption", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "encryption"), problem.NotAuthenticated)
}

// eventually waits for a condition that something else brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 15 s: %s", what)
		}
	}
}
