// Package config says what can be set, and reads it: a flag goes before an environment variable, that before a key of
// parley.yaml, that before the default.
//
// # Promises
//   - A setting has one name: the flag --jwt-secret is the variable PARLEY_JWT_SECRET and the key jwt-secret.
//   - An unknown key is an error that names the nearest known one; an unknown flag likewise (kong).
//   - An impossible or contradictory setting is an error that names the setting to change, before anything starts.
//   - No secret stands in an error, in the help or in what [Dump] writes.
//   - docs/reference/configuration.md and parley.sample.yaml are written from the structs of this package, and a test
//     holds them to it: go test ./internal/config -update.
//
// # How to add a setting
// A field in the struct of its group in settings.go, with name, default, placeholder and a sentence; a rule in check.go
// if not every value will do; then -update. Only what something uses is a setting.
//
// # Not here
// The commands (cmd/parley), which embed these structs; what a setting does (its owner).
package config
