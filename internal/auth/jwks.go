package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

const (
	jwksTimeout   = 5 * time.Second
	jwksBytesMax  = 1 << 20
	jwksAgeMax    = 15 * time.Minute // then the keys are fetched again, while the old ones go on serving
	jwksRetry     = 30 * time.Second // after a fetch that failed, if nobody waits for one
	jwksGap       = 2 * time.Second  // the least time between two fetches
	jwksWaiterMax = 1024             // those who wait for a fetch; further ones are refused
	redirectsMax  = 3
)

// jwks keeps the keys that a URL serves (RFC 7517).
//
// The caches of libraries ration fetches by tokens, which tokens with invented key ids use up. Here an unknown key id
// asks for "a fetch that begins after now", and all who ask get the same one.
type jwks struct {
	url    string
	client *http.Client
	now    func() time.Time
	gap    time.Duration
	log    *slog.Logger

	ctx     context.Context // of the fetching goroutine
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	keys    []key
	fetched time.Time // when the last good fetch began
	tried   time.Time // when the last fetch began
	failed  error     // of the last fetch
	next    *fetch    // waits for the gap to pass, or nil
	current *fetch    // under way, or nil
	waiters int
}

// A fetch is done when its channel is closed.
type fetch struct{ done chan struct{} }

func newJWKS(address string, now func() time.Time, log *slog.Logger) (*jwks, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("auth: the JWKS URL cannot be read") // The error would repeat it, with a password.
	}
	if err := secureURL(u); err != nil {
		return nil, fmt.Errorf("auth: the JWKS URL: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	j := &jwks{
		url: address,
		client: &http.Client{
			Transport: transport,
			Timeout:   jwksTimeout,
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) > redirectsMax {
					return errors.New("too many redirects")
				}
				return secureURL(r.URL)
			},
		},
		now: now,
		gap: jwksGap,
		log: log,
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j, nil
}

// secureURL allows what nobody on the way can change.
func secureURL(u *url.URL) error {
	if u.Scheme == "https" && u.Host != "" {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("it must be https, or http on this machine")
}

// matching returns the keys for a token's alg and kid; an empty kid matches all. Old keys set a fetch going.
func (j *jwks) matching(alg, kid string) []key {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.now().Sub(j.fetched) > jwksAgeMax && j.current == nil && j.next == nil && j.sinceTried() >= jwksRetry {
		j.schedule()
	}
	var found []key
	for _, k := range j.keys {
		if k.alg == alg && (kid == "" || k.kid == kid) {
			found = append(found, k)
		}
	}
	return found
}

// renew waits for a fetch that began after the call. It is for a token that no key matches.
func (j *jwks) renew(ctx context.Context) error {
	j.mu.Lock()
	if j.waiters >= jwksWaiterMax {
		j.mu.Unlock()
		return errors.New("too many tokens wait for new keys")
	}
	if j.next == nil {
		j.schedule()
	}
	f := j.next
	j.waiters++
	j.mu.Unlock()

	defer func() {
		j.mu.Lock()
		j.waiters--
		j.mu.Unlock()
	}()
	select {
	case <-f.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-j.ctx.Done():
		return errors.New("closed")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// schedule plans a fetch for when the gap has passed. The lock is held, and next is nil.
func (j *jwks) schedule() {
	j.next = &fetch{done: make(chan struct{})}
	if j.current == nil && j.ctx.Err() == nil {
		j.running.Go(j.run)
	}
}

// run makes the fetches that are planned, one after the other, and ends when there are none.
func (j *jwks) run() {
	for more := true; more && j.begin(); {
		began := j.now()
		keys, err := j.get()
		more = j.end(began, keys, err)
	}
}

// begin waits for the gap to pass, and makes the planned fetch the current one. It is false once all is closed.
func (j *jwks) begin() bool {
	j.mu.Lock()
	wait := j.gap - j.sinceTried()
	// From here on others see that a goroutine is at work, and start none.
	j.current = j.next
	j.mu.Unlock()

	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-j.ctx.Done():
			return false
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.current, j.next = j.next, nil
	j.tried = j.now()
	return true
}

// end tells those who wait, and whether one more fetch is planned. Who has been told finds nothing under way any more.
func (j *jwks) end(began time.Time, keys []key, err error) (more bool) {
	j.mu.Lock()
	before := j.failed
	if j.failed = err; err == nil {
		j.keys, j.fetched = keys, began
	}
	close(j.current.done)
	if more = j.next != nil; !more {
		j.current = nil
	}
	j.mu.Unlock()

	switch {
	case err != nil && before == nil && j.ctx.Err() == nil:
		j.log.Warn("auth: keys could not be fetched; the old ones stay in use", "err", err)
	case err == nil && before != nil:
		j.log.Info("auth: keys are fetched again", "keys", len(keys))
	}
	return more
}

// sinceTried is how long ago the last fetch began; a clock that went back does not stop fetches.
func (j *jwks) sinceTried() time.Duration {
	if d := j.now().Sub(j.tried); d >= 0 {
		return d
	}
	return jwksRetry
}

// get fetches the keys. A key that we have no use for is left out, as RFC 7517, section 5, asks.
func (j *jwks) get() ([]key, error) {
	request, err := http.NewRequestWithContext(j.ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return nil, errors.New("auth: the JWKS URL cannot be read")
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := j.client.Do(request)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // Without the URL, which may hold a password.
		}
		return nil, fmt.Errorf("auth: fetch JWKS: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("auth: fetch JWKS: status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, jwksBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("auth: fetch JWKS: %w", err)
	}
	if len(body) > jwksBytesMax {
		return nil, fmt.Errorf("auth: fetch JWKS: more than %d bytes", jwksBytesMax)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil || set.Keys == nil {
		return nil, errors.New("auth: fetch JWKS: the answer is no JWK Set")
	}
	var keys []key
	for _, raw := range set.Keys {
		if k, ok := parseJWK(raw); ok && len(keys) < keysMax {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("auth: fetch JWKS: no usable key in the answer")
	}
	return keys, nil
}

// parseJWK reads a public key for one of our algorithms. Symmetric keys are none: what a URL shows is no secret.
func parseJWK(raw json.RawMessage) (key, bool) {
	jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key{}, false
	}
	k, err := publicKey(jwk.Key())
	if err != nil {
		return key{}, false
	}
	m := jwk.Marshal()
	if m.ALG != "" && m.ALG.String() != k.alg || m.USE != "" && m.USE != jwkset.UseSig {
		return key{}, false
	}
	k.kid = m.KID
	return k, true
}

func (j *jwks) close() {
	j.mu.Lock() // So that no fetch is scheduled between the two.
	j.cancel()
	j.mu.Unlock()
	j.running.Wait()
	j.client.CloseIdleConnections()
}
