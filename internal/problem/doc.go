// Package problem owns the failures that a client may see: their codes, statuses and words.
//
// An [Error] carries a stable code and a sentence for people; a socket acknowledgement and a REST
// body (RFC 9457) show the same code. Every other error stays inside: the client is told "internal"
// and a request id, and the log gets the cause.
//
// # Promises
//   - The codes are those of the wire contract; a code's status never changes.
//   - An Error's message never repeats what the client sent, nor an internal cause.
//
// # Not here
// How an error is written to a socket (gateway) or to an HTTP response (rest).
package problem
