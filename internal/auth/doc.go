// Package auth says who someone is: it verifies tokens and API keys, and owns the users.
//
// # Promises
//   - A [Verifier] accepts only what the wire contract lists: HS256, RS256, ES256 and EdDSA, each only with a key
//     of its own type, so that a token cannot choose how it is checked. Every token expires.
//   - Whoever is refused learns "Authentication failed", and whether a token that was good has expired; nothing else.
//   - Keys from a JWKS URL rotate without a restart, and stay in use while the URL does not answer. However many tokens
//     name unknown keys, the URL is asked at most every two seconds, and each question may find any new key.
//   - No secret, key or token stands in an error or a log line.
//   - [Users.SignedIn] asks the database only when the token says something new.
//
// # Tables
// It alone writes users. A row is made by a valid token ([Users.SignedIn]) or by being named ([Users.Ensure]), and its id
// never changes.
//
// # Concurrency
// A Verifier with a JWKS URL has at most one goroutine, which fetches; Close ends it. All else runs in the caller's. No lock
// is held during a fetch or a query.
//
// # Not here
// Sessions and revocation; what a role may do (chat, admin); sockets and headers (gateway, rest).
package auth
