package rest

import (
	"errors"
	"net/http"
	"strings"

	"parley/internal/auth"
	"parley/internal/id"
	"parley/internal/problem"
)

var (
	errNotAuthenticated = problem.New(problem.NotAuthenticated, problem.AuthenticationFailed)
	errNoActingUser     = problem.New(problem.BadRequest, "X-Parley-User must name the user to act for.")
)

// caller tells for whom a request is: the user of its token, or the one that an application's server names. It comes
// into being if it is not known. Errors: not_authenticated, token_expired, bad_request, and the database's.
func (f *face) caller(w http.ResponseWriter, r *http.Request) (id.User, error) {
	if key := r.Header.Get("X-API-Key"); key != "" {
		return f.actingUser(w, r, key)
	}
	header := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return "", errNotAuthenticated
	}
	i, err := f.Verifier.Verify(r.Context(), strings.TrimSpace(token))
	if err != nil {
		// RFC 6750, section 3.1: whoever showed a token is told that it was the token.
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		return "", err
	}
	if _, err := f.Users.SignedIn(r.Context(), i); err != nil {
		return "", err
	}
	return i.User, nil
}

// actingUser takes the word of whoever has an API key.
func (f *face) actingUser(w http.ResponseWriter, r *http.Request, key string) (id.User, error) {
	if !f.Keys.Match(key) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return "", errNotAuthenticated
	}
	u, err := id.ParseUser(r.Header.Get("X-Parley-User"))
	if err != nil {
		return "", errNoActingUser
	}
	// Signing in writes the role that a token says. There is no token here, so one who exists keeps his.
	_, err = f.Users.Get(r.Context(), u)
	if pe, ok := errors.AsType[*problem.Error](err); ok && pe.Code == problem.NotFound {
		_, err = f.Users.SignedIn(r.Context(), auth.Identity{User: u, Role: auth.RoleUser})
	}
	return u, err
}
