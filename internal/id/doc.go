// Package id owns the identifiers of the product and what can be read from them.
//
// A conversation and a message are named by a UUIDv7 (RFC 9562, section 5.7) that carries its
// bucket in the first eight of the twelve rand_a bits, so that an id alone leads to the part of
// the log it lives in. A user is named by the application, in its own words.
//
// # Promises
//   - The compiler sees a swap: every kind of id is a type of its own.
//   - Whoever parses an id from outside gets it in canonical form or an error; nothing else
//     of the product needs to look at an id's text.
//   - A direct conversation's bucket is a function of its pair, the same for ever.
//
// # Not here
// Whether an id exists, and who may see what it names (package chat).
package id
