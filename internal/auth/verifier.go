package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"parley/internal/id"
	"parley/internal/problem"
)

const (
	// TokenBytesMax bounds a token.
	TokenBytesMax = 8 << 10
	// NameRunesMax bounds a display name taken from a token; the rest is cut off.
	NameRunesMax = 128

	leeway     = 30 * time.Second // "Signing in" of the wire contract
	kidTryMax  = 16               // keys that are tried for a token without a kid
	scopeMax   = 1024             // bytes
	tokenIDMax = 256              // bytes
)

// Role is what a token says of a user's rights.
type Role string

// The roles. A token without one, or with one of somebody else's, says [RoleUser].
const (
	RoleUser  Role = "user"
	RoleAdmin Role = "admin"
	RoleGuest Role = "guest"
)

// Identity is what a valid token says.
type Identity struct {
	User      id.User
	Name      string // empty when the token has none
	Role      Role
	Scope     string
	ExpiresAt time.Time
	TokenID   string
}

// What a client is told. The causes, for the log, are wrapped beside them.
var (
	errNotAuthenticated = problem.New(problem.NotAuthenticated, problem.AuthenticationFailed)
	errTokenExpired     = problem.New(problem.TokenExpired, problem.AuthenticationFailed)
)

// VerifierOptions name the keys. Each given one verifies the tokens of its own algorithm.
type VerifierOptions struct {
	Secret   []byte   // HS256; at least SecretBytesMin
	KeyFile  string   // public keys in PEM form; RS256, ES256, EdDSA
	JWKSURL  string   // the same, fetched; https, or http on this machine
	Audience []string // one of them must stand in aud; none: not checked
	Issuer   string   // must be iss; empty: not checked

	Log *slog.Logger
	Now func() time.Time
}

// A Verifier checks tokens. It may be used by any number of goroutines.
type Verifier struct {
	keys   []key
	jwks   *jwks // or nil
	parser *jwt.Parser
}

// NewVerifier reads the keys. A JWKS URL is first asked in the background; that it does not answer is no error.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{}
	if len(o.Secret) > 0 {
		if err := checkSecret(o.Secret); err != nil {
			return nil, err
		}
		v.keys = append(v.keys, key{alg: hs256, value: o.Secret})
	}
	if o.KeyFile != "" {
		keys, err := readKeyFile(o.KeyFile)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, keys...)
	}
	if o.JWKSURL != "" {
		var err error
		if v.jwks, err = newJWKS(o.JWKSURL, o.Now, o.Log); err != nil {
			return nil, err
		}
		v.jwks.matching("", "") // Old from the start, the keys are fetched.
	}
	if len(v.keys) == 0 && v.jwks == nil {
		return nil, errors.New("auth: no secret, key file or JWKS URL to verify tokens with")
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{hs256, rs256, es256, eddsa}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(o.Now),
	}
	if len(o.Audience) > 0 {
		options = append(options, jwt.WithAudience(o.Audience...))
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

// Close ends a fetch of keys under way.
func (v *Verifier) Close() {
	if v.jwks != nil {
		v.jwks.close()
	}
}

// claims is a token's payload. What is not registered is read leniently: an issuer may use the same names otherwise.
type claims struct {
	jwt.RegisteredClaims
	Name  text `json:"name"`
	Role  text `json:"role"`
	Scope text `json:"scope"`
}

// text is a JSON string; anything else reads as empty.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// Verify checks a token and tells what it says. It may wait for a JWKS URL when no known key matches.
//
// Errors are problems to show, with the cause wrapped for the log: [problem.TokenExpired] for a token that was good until
// it expired, [problem.NotAuthenticated] for all else.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if len(token) > TokenBytesMax {
		return Identity{}, fmt.Errorf("%w: a token of %d bytes", errNotAuthenticated, len(token))
	}
	c, newer, err := v.parse(token)
	if newer {
		if renewal := v.jwks.renew(ctx); renewal != nil {
			return Identity{}, fmt.Errorf("%w: %w; and new keys are unavailable: %w", errNotAuthenticated, err, renewal)
		}
		c, _, err = v.parse(token)
	}
	if err != nil {
		if onlyExpired(err) {
			return Identity{}, fmt.Errorf("%w: %w", errTokenExpired, err)
		}
		return Identity{}, fmt.Errorf("%w: %w", errNotAuthenticated, err)
	}
	return identity(c)
}

var (
	errNoKey    = errors.New("no key for the token's alg and kid")
	errCritical = errors.New("the token has critical extensions")
)

// parse checks the signature with the keys at hand, and then the claims. If that failed and the token's key may be one that
// the JWKS URL has and we have not, newer is true.
func (v *Verifier) parse(token string) (c *claims, newer bool, err error) {
	c = &claims{}
	unknown := false // no fetched key is known to be the token's
	_, err = v.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		// RFC 7515, section 4.1.11: who does not know an extension that is critical must refuse it. We know none.
		if _, ok := t.Header["crit"]; ok {
			return nil, errCritical
		}
		alg := t.Method.Alg()
		var set jwt.VerificationKeySet
		for _, k := range v.keys {
			if k.alg == alg {
				set.Keys = append(set.Keys, k.value)
			}
		}
		if v.jwks != nil && alg != hs256 {
			kid, _ := t.Header["kid"].(string)
			found := v.jwks.matching(alg, kid)
			unknown = kid == "" || len(found) == 0
			for _, k := range found[:min(len(found), kidTryMax)] {
				set.Keys = append(set.Keys, k.value)
			}
		}
		if len(set.Keys) == 0 {
			return nil, errNoKey
		}
		return set, nil
	})
	newer = unknown && (errors.Is(err, errNoKey) || errors.Is(err, jwt.ErrTokenSignatureInvalid))
	return c, newer, err
}

// onlyExpired reports whether all that is wrong with a token is its age.
func onlyExpired(err error) bool {
	if !errors.Is(err, jwt.ErrTokenExpired) {
		return false
	}
	for _, other := range []error{
		jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// identity reads the claims of a valid token.
func identity(c *claims) (Identity, error) {
	user, err := id.ParseUser(c.Subject)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: the token's sub is no user id: %w", errNotAuthenticated, err)
	}
	if len(c.Scope) > scopeMax || len(c.ID) > tokenIDMax {
		return Identity{}, fmt.Errorf("%w: the token's scope or jti is too long", errNotAuthenticated)
	}
	i := Identity{
		User:      user,
		Name:      cleanName(string(c.Name)),
		Role:      RoleUser,
		Scope:     string(c.Scope),
		ExpiresAt: c.ExpiresAt.Time,
		TokenID:   c.ID,
	}
	if r := Role(c.Role); r == RoleAdmin || r == RoleGuest {
		i.Role = r
	}
	return i, nil
}

// cleanName makes a display name of what a token says: without control characters, which a database may refuse, and cut to
// NameRunesMax.
func cleanName(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s))
	if utf8.RuneCountInString(s) > NameRunesMax {
		s = string([]rune(s)[:NameRunesMax])
	}
	return s
}
