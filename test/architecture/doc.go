// Package architecture holds the tests over the whole source tree: what no compiler and no linter sees.
//
// # Promises
//   - Every import obeys the block of rules in docs/ARCHITECTURE.md, and that block names every package and no other.
//   - Every package says in its comment what it is for, what it promises, which tables it owns and what is not in it.
//   - No test skips itself or sleeps, unless a comment "allowed: why" stands on the line.
//   - No file knows the machine it was written on, and no link between documents is broken.
//
// # Not here
// The rules themselves (docs/ARCHITECTURE.md), and what gofmt, vet and staticcheck see (make lint).
package architecture
