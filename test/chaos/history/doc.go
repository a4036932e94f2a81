// Package history is the record of a run against Parley, and the judge of it.
//
// The record is one JSON object a line: each operation before it was sent and after it was answered, every event that a connection got,
// and every harm that was done. The order of the lines is real: what stands on an earlier line happened before what stands on a later
// one began to be written. So if the answer to one operation stands before the beginning of another, the first was over before the second
// began, and that is all that the judge builds on.
//
// # Promises
//   - A record of a server that keeps the promises 1 to 9 of the wire contract has no violations, whatever the faults: what a client cannot
//     know (whether an operation without an answer was done, or will still be) speaks for the server.
//   - Each kind of violation has a test that shows a record with it, and the nearest one without it.
//   - The judge knows nothing of the server but its wire, and reads a record in one pass.
//
// # Not here
// Making records, and harm (test/chaos, test/chaos/world). Presence, typing and read receipts, which the server does not have yet.
package history
