// Package wire owns how JSON from outside becomes values, and how times become JSON.
//
// # Promises
//   - What [Decode] accepts is well-formed: UTF-8, no NUL, no surrogate without its other half, no
//     deeper than a bound. On failure nothing of the input is repeated.
//   - Times on the wire are RFC 3339 in UTC with milliseconds.
//
// # Not here
// What a value means (its package), and how a response is framed (gateway, rest).
package wire
