package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"parley/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	secret = []byte("0123456789abcdef0123456789abcdef")
)

// A clock is moved by the test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// signers are made once: RSA keys take time.
var signers = sync.OnceValue(func() (s struct {
	rsa, rsa2, small *rsa.PrivateKey
	p256, p384       *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
}) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	s.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	s.rsa2, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	s.small, err = rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	s.p256, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	s.p384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, s.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return s
})

// good are claims that any verifier without aud and iss accepts at the start of the clock.
func good(more ...jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "ann", "exp": start.Add(time.Hour).Unix()}
	for _, m := range more {
		maps.Copy(c, m)
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c jwt.Claims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t testing.TB, o VerifierOptions) *Verifier {
	t.Helper()
	if o.Now == nil {
		o.Now = newClock().now
	}
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	t.Cleanup(v.Close)
	return v
}

func accepted(t testing.TB, v *Verifier, what, token string) Identity {
	t.Helper()
	i, err := v.Verify(context.Background(), token)
	if err != nil {
		t.Errorf("%s: refused: %v", what, err)
	}
	return i
}

func refused(t testing.TB, v *Verifier, what, token string, code problem.Code) {
	t.Helper()
	i, err := v.Verify(context.Background(), token)
	p, shown := problem.Of(err)
	if err == nil || !shown || p.Code != code || p.Message != "Authentication failed" {
		t.Errorf("%s: Verify = %+v, %v, want %s", what, i, err, code)
	}
	if i != (Identity{}) {
		t.Errorf("%s: an identity beside the error: %+v", what, i)
	}
	if err != nil && len(token) > 40 && strings.Contains(err.Error(), token[len(token)-40:]) {
		t.Errorf("%s: the error shows the token", what)
	}
}

func pemFile(t testing.TB, keys ...crypto.PublicKey) string {
	t.Helper()
	var b []byte
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return file(t, b)
}

func file(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClaims(t *testing.T) {
	v := verifier(t, VerifierOptions{Secret: secret})
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	long := strings.Repeat("x", 128)
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		want   problem.Code // empty: accepted
	}{
		"plain":                  {nil, ""},
		"expired within leeway":  {jwt.MapClaims{"exp": at(-29 * time.Second)}, ""},
		"expired":                {jwt.MapClaims{"exp": at(-31 * time.Second)}, problem.TokenExpired},
		"no exp":                 {jwt.MapClaims{"exp": nil}, problem.NotAuthenticated},
		"exp 0":                  {jwt.MapClaims{"exp": 0}, problem.TokenExpired},
		"exp a string":           {jwt.MapClaims{"exp": "tomorrow"}, problem.NotAuthenticated},
		"nbf within leeway":      {jwt.MapClaims{"nbf": at(29 * time.Second)}, ""},
		"nbf to come":            {jwt.MapClaims{"nbf": at(31 * time.Second)}, problem.NotAuthenticated},
		"iat within leeway":      {jwt.MapClaims{"iat": at(29 * time.Second)}, ""},
		"iat to come":            {jwt.MapClaims{"iat": at(31 * time.Second)}, problem.NotAuthenticated},
		"expired and not yet":    {jwt.MapClaims{"exp": at(-time.Hour), "nbf": at(time.Hour)}, problem.NotAuthenticated},
		"sub of 128 bytes":       {jwt.MapClaims{"sub": long}, ""},
		"sub of 129 bytes":       {jwt.MapClaims{"sub": long + "x"}, problem.NotAuthenticated},
		"sub of other scripts":   {jwt.MapClaims{"sub": "анна@例え"}, ""},
		"no sub":                 {jwt.MapClaims{"sub": nil}, problem.NotAuthenticated},
		"empty sub":              {jwt.MapClaims{"sub": ""}, problem.NotAuthenticated},
		"sub with NUL":           {jwt.MapClaims{"sub": "a\x00b"}, problem.NotAuthenticated},
		"sub with a line break":  {jwt.MapClaims{"sub": "a\nb"}, problem.NotAuthenticated},
		"sub a number":           {jwt.MapClaims{"sub": 7}, problem.NotAuthenticated},
		"scope too long":         {jwt.MapClaims{"scope": strings.Repeat("s", scopeMax+1)}, problem.NotAuthenticated},
		"name and role of kinds": {jwt.MapClaims{"name": 7, "role": []string{"admin"}, "scope": true}, ""},
	} {
		token := sign(t, jwt.SigningMethodHS256, secret, good(test.claims))
		if test.want == "" {
			accepted(t, v, name, token)
		} else {
			refused(t, v, name, token, test.want)
		}
	}
}

func TestIdentity(t *testing.T) {
	v := verifier(t, VerifierOptions{Secret: secret})
	got := accepted(t, v, "full", sign(t, jwt.SigningMethodHS256, secret, good(jwt.MapClaims{
		"name": "  Ann\x00\n A. ", "role": "admin", "scope": "chat:read", "jti": "j1",
	})))
	want := Identity{User: "ann", Name: "Ann A.", Role: RoleAdmin, Scope: "chat:read", ExpiresAt: start.Add(time.Hour), TokenID: "j1"}
	if !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("ExpiresAt = %v, want %v", got.ExpiresAt, want.ExpiresAt)
	}
	if got.ExpiresAt = want.ExpiresAt; got != want {
		t.Errorf("Verify = %+v, want %+v", got, want)
	}
	for role, want := range map[any]Role{nil: RoleUser, "user": RoleUser, "guest": RoleGuest, "Admin": RoleUser, "authenticated": RoleUser, 1: RoleUser} {
		i := accepted(t, v, "role", sign(t, jwt.SigningMethodHS256, secret, good(jwt.MapClaims{"role": role})))
		if i.Role != want {
			t.Errorf("role %v is %s, want %s", role, i.Role, want)
		}
	}
	i := accepted(t, v, "long name", sign(t, jwt.SigningMethodHS256, secret, good(jwt.MapClaims{"name": strings.Repeat("ä", 500)})))
	if i.Name != strings.Repeat("ä", NameRunesMax) {
		t.Errorf("a name of 500 runes became %d bytes", len(i.Name))
	}
}

func TestAudienceAndIssuer(t *testing.T) {
	v := verifier(t, VerifierOptions{Secret: secret, Audience: []string{"chat", "chat-old"}, Issuer: "https://id.example.com"})
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		ok     bool
	}{
		"both":           {jwt.MapClaims{"aud": "chat", "iss": "https://id.example.com"}, true},
		"one of several": {jwt.MapClaims{"aud": []string{"x", "chat-old"}, "iss": "https://id.example.com"}, true},
		"other audience": {jwt.MapClaims{"aud": "shop", "iss": "https://id.example.com"}, false},
		"no audience":    {jwt.MapClaims{"iss": "https://id.example.com"}, false},
		"other issuer":   {jwt.MapClaims{"aud": "chat", "iss": "https://id.example.com.evil"}, false},
		"no issuer":      {jwt.MapClaims{"aud": "chat"}, false},
		"expired, other": {jwt.MapClaims{"aud": "shop", "iss": "x", "exp": 1}, false},
	} {
		token := sign(t, jwt.SigningMethodHS256, secret, good(test.claims))
		if test.ok {
			accepted(t, v, name, token)
		} else {
			refused(t, v, name, token, problem.NotAuthenticated)
		}
	}
}

func TestKeyFile(t *testing.T) {
	s := signers()
	path := pemFile(t, &s.rsa.PublicKey, &s.p256.PublicKey, s.ed.Public())
	v := verifier(t, VerifierOptions{KeyFile: path})
	accepted(t, v, "RS256", sign(t, jwt.SigningMethodRS256, s.rsa, good()))
	accepted(t, v, "RS256 with a kid", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "any"))
	accepted(t, v, "ES256", sign(t, jwt.SigningMethodES256, s.p256, good()))
	accepted(t, v, "EdDSA", sign(t, jwt.SigningMethodEdDSA, s.ed, good()))
	refused(t, v, "another RSA key", sign(t, jwt.SigningMethodRS256, s.rsa2, good()), problem.NotAuthenticated)
	refused(t, v, "expired, another key", sign(t, jwt.SigningMethodRS256, s.rsa2, good(jwt.MapClaims{"exp": 1})), problem.NotAuthenticated)
	refused(t, v, "HS256 without a secret", sign(t, jwt.SigningMethodHS256, secret, good()), problem.NotAuthenticated)

	both := verifier(t, VerifierOptions{KeyFile: path, Secret: secret})
	accepted(t, both, "secret beside key file", sign(t, jwt.SigningMethodHS256, secret, good()))
	accepted(t, both, "key file beside secret", sign(t, jwt.SigningMethodES256, s.p256, good()))
}

// A token must not choose how it is checked.
func TestAlgorithmSwap(t *testing.T) {
	s := signers()
	der, err := x509.MarshalPKIXPublicKey(&s.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	path := pemFile(t, &s.rsa.PublicKey, &s.p256.PublicKey)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	url := newJWKSServer(t)
	url.serve(t, "r1", &s.rsa.PublicKey, "e1", &s.p256.PublicKey)
	for name, v := range map[string]*Verifier{
		"secret":   verifier(t, VerifierOptions{Secret: secret}),
		"key file": verifier(t, VerifierOptions{KeyFile: path}),
		"both":     verifier(t, VerifierOptions{KeyFile: path, Secret: secret}),
		"JWKS":     quick(verifier(t, VerifierOptions{JWKSURL: url.URL})),
	} {
		none := sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good())
		refused(t, v, name+": alg none", none, problem.NotAuthenticated)
		refused(t, v, name+": alg none with a signature", none+"AAAA", problem.NotAuthenticated)
		for _, spelling := range []string{"None", "NONE", "nOnE", "", "hs256"} {
			refused(t, v, name+": alg "+spelling, withHeader(t, `{"alg":"`+spelling+`","typ":"JWT"}`, none), problem.NotAuthenticated)
		}
		for _, public := range [][]byte{text, der, []byte(strings.TrimSpace(string(text))), s.rsa.N.Bytes()} {
			refused(t, v, name+": HS256 with the public key", sign(t, jwt.SigningMethodHS256, public, good(), "kid", "r1"), problem.NotAuthenticated)
		}
		refused(t, v, name+": HS512", sign(t, jwt.SigningMethodHS512, secret, good()), problem.NotAuthenticated)
		refused(t, v, name+": RS512", sign(t, jwt.SigningMethodRS512, s.rsa, good(), "kid", "r1"), problem.NotAuthenticated)
		refused(t, v, name+": PS256", sign(t, jwt.SigningMethodPS256, s.rsa, good(), "kid", "r1"), problem.NotAuthenticated)
		refused(t, v, name+": ES384", sign(t, jwt.SigningMethodES384, s.p384, good()), problem.NotAuthenticated)
		if name == "JWKS" { // A key file knows no ids.
			refused(t, v, name+": RS256 by the id of the EC key", sign(t, jwt.SigningMethodRS256, s.rsa, good(), "kid", "e1"), problem.NotAuthenticated)
		}
		es := sign(t, jwt.SigningMethodES256, s.p256, good(), "kid", "e1")
		refused(t, v, name+": ES256 as RS256", withHeader(t, `{"alg":"RS256","kid":"r1"}`, es), problem.NotAuthenticated)
	}
}

// withHeader replaces a token's header, and leaves the rest.
func withHeader(t *testing.T, header, token string) string {
	t.Helper()
	_, rest, ok := strings.Cut(token, ".")
	if !ok {
		t.Fatal("no token")
	}
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

func TestMalformedTokens(t *testing.T) {
	s := signers()
	v := verifier(t, VerifierOptions{Secret: secret, KeyFile: pemFile(t, &s.p256.PublicKey)})
	ok := sign(t, jwt.SigningMethodHS256, secret, good())
	parts := strings.Split(ok, ".")
	for name, token := range map[string]string{
		"empty":              "",
		"dots":               "..",
		"two parts":          parts[0] + "." + parts[1],
		"four parts":         ok + ".x",
		"no signature":       parts[0] + "." + parts[1] + ".",
		"not base64":         "*." + parts[1] + "." + parts[2],
		"padded":             ok + "=",
		"header no JSON":     "bm9uZQ." + parts[1] + "." + parts[2],
		"header null":        "bnVsbA." + parts[1] + "." + parts[2],
		"alg a number":       withHeader(t, `{"alg":1}`, ok),
		"other claims":       parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"bob","exp":9999999999}`)) + "." + parts[2],
		"short ES256":        withHeader(t, `{"alg":"ES256"}`, ok),
		"bytes":              "\xff\x00\xfe.\xff.\xff",
		"a bearer":           "Bearer " + ok,
		"critical extension": sign(t, jwt.SigningMethodHS256, secret, good(), "crit", "b64"),
		"too long":           sign(t, jwt.SigningMethodHS256, secret, good(jwt.MapClaims{"x": strings.Repeat("x", TokenBytesMax)})),
	} {
		refused(t, v, name, token, problem.NotAuthenticated)
	}
	accepted(t, v, "the token itself", ok)
}

func FuzzVerify(f *testing.F) {
	s := signers()
	v := verifier(f, VerifierOptions{Secret: secret, KeyFile: pemFile(f, &s.p256.PublicKey, s.ed.Public())})
	ok := sign(f, jwt.SigningMethodHS256, secret, good())
	f.Add(ok)
	f.Add("a.b.c")
	f.Add(sign(f, jwt.SigningMethodES256, s.p256, good()))
	f.Fuzz(func(t *testing.T, token string) {
		i, err := v.Verify(context.Background(), token)
		if err == nil && i.User != "ann" {
			t.Errorf("a token for %q was made", i.User)
		}
		if _, shown := problem.Of(err); err != nil && !shown {
			t.Errorf("an error that is no problem: %v", err)
		}
	})
}

func TestNewVerifierErrors(t *testing.T) {
	s := signers()
	private, err := x509.MarshalPKCS8PrivateKey(s.ed)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]VerifierOptions{
		"nothing":              {},
		"short secret":         {Secret: secret[:31]},
		"no such file":         {KeyFile: filepath.Join(t.TempDir(), "absent")},
		"no PEM":               {KeyFile: file(t, []byte("hello"))},
		"a private key":        {KeyFile: file(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))},
		"broken PEM":           {KeyFile: file(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))},
		"RSA of 1024 bits":     {KeyFile: pemFile(t, &s.small.PublicKey)},
		"P-384":                {KeyFile: pemFile(t, &s.p384.PublicKey)},
		"good key and bad one": {KeyFile: pemFile(t, &s.rsa.PublicKey, &s.small.PublicKey)},
		"JWKS by plain http":   {JWKSURL: "http://id.example.com/jwks"},
		"JWKS from a file":     {JWKSURL: "file:///etc/keys"},
		"JWKS without host":    {JWKSURL: "https:///jwks"},
		"JWKS unreadable":      {JWKSURL: "https://u:hush@%zz/"},
	} {
		v, err := NewVerifier(o)
		if err == nil {
			v.Close()
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), string(secret[:31])) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

func TestMintIsAccepted(t *testing.T) {
	c := newClock()
	v := verifier(t, VerifierOptions{Secret: secret, Audience: []string{"chat"}, Issuer: "me", Now: c.now})
	token, err := Mint(secret, Claims{Sub: "ann", Name: "Ann", Role: RoleAdmin, TTL: time.Hour, Audience: "chat", Issuer: "me"}, c.now())
	if err != nil {
		t.Fatal(err)
	}
	i := accepted(t, v, "minted", token)
	if i.User != "ann" || i.Name != "Ann" || i.Role != RoleAdmin || !i.ExpiresAt.Equal(start.Add(time.Hour)) || i.TokenID == "" {
		t.Errorf("Verify = %+v", i)
	}
	c.add(time.Hour + 31*time.Second)
	refused(t, v, "minted, later", token, problem.TokenExpired)

	for name, claims := range map[string]Claims{
		"no user":      {TTL: time.Hour},
		"control":      {Sub: "a\n", TTL: time.Hour},
		"unknown role": {Sub: "ann", Role: "root", TTL: time.Hour},
		"no TTL":       {Sub: "ann"},
		"negative TTL": {Sub: "ann", TTL: -time.Hour},
	} {
		if _, err := Mint(secret, claims, start); err == nil {
			t.Errorf("Mint: %s: no error", name)
		}
	}
	if _, err := Mint(secret[:31], Claims{Sub: "ann", TTL: time.Hour}, start); err == nil {
		t.Error("Mint with a short secret: no error")
	}
}

func TestLoadSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	secrets := make([]string, 8)
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			s, err := LoadSecret(dir)
			if err != nil {
				t.Error(err)
			}
			secrets[i] = string(s)
		})
	}
	all.Wait()
	for _, s := range secrets {
		if s != secrets[0] || len(s) < SecretBytesMin {
			t.Fatalf("several first starts got %q", secrets)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "jwt-secret"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the secret: %v, %v, want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("in the data folder: %v, %v, want the secret alone", entries, err)
	}
	if other, err := LoadSecret(t.TempDir()); err != nil || string(other) == secrets[0] {
		t.Errorf("another folder's secret: the same (%v)", err)
	}
	short := t.TempDir()
	if err := os.WriteFile(filepath.Join(short, "jwt-secret"), []byte("hunter2 "+strings.Repeat(" ", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecret(short); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short secret: %v", err)
	}
}

func TestAPIKeys(t *testing.T) {
	keys, err := NewAPIKeys([]string{"first-key-of-two-", "second-key-of-two"})
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]bool{
		"first-key-of-two-": true, "second-key-of-two": true,
		"": false, "first-key-of-two": false, "first-key-of-two-x": false, "first-key-of-two-,second-key-of-two": false,
	} {
		if keys.Match(k) != want {
			t.Errorf("Match(%q) = %v", k, !want)
		}
	}
	if (APIKeys{}).Match("") {
		t.Error("no keys match the empty key")
	}
	if _, err := NewAPIKeys([]string{"first-key-of-two-", "tooshort"}); err == nil || strings.Contains(err.Error(), "tooshort") {
		t.Errorf("a short key: %v", err)
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	server := newJWKSServer(t)
	release := server.stall()
	defer release()
	v := verifier(t, VerifierOptions{JWKSURL: server.URL})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Verify(ctx, sign(t, jwt.SigningMethodRS256, signers().rsa, good(), "kid", "r1")); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v, want the context's end as its cause", err)
	}
}
