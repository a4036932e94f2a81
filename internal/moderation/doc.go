// Package moderation owns the judgement of what is about to be sent.
//
// # Promises
//   - A word is found as a word: "spam" does not flag "antispam", and case and width do not hide it.
//   - Judging waits for nothing and never changes the text.
//
// # Not here
// Who sees a flag (chat), and the queue of what was flagged, which does not exist yet.
package moderation
