// Package chat owns conversations, members and messages, and the log that all of them are written to.
//
// # The log
// Conversations are hashed into 256 buckets. Every accepted change takes the next position in its
// bucket, under a lock that is held to the commit, so that positions become visible in order: who has
// read a bucket up to n never finds something at or below n later that he had not seen. A message has
// pos (where it was made, set once) and changed_pos (where it was last changed). A page (n, m] of the log
// is every row with pos in it, as new and in its present state, and every row with changed_pos in it
// and pos <= n, as changed; so no creation hides behind a later edit.
//
// # Invariants
//   - seq of a conversation is 1, 2, 3, … without gaps, in commit order, which is also the order of pos.
//   - A position is used once in its bucket and never lies beyond the bucket's last_pos.
//   - A client_message_id of a sender names one message of a conversation, for ever.
//   - A receipt only advances. Its read seq is at most its delivered seq, that at most the conversation's last seq. When it
//     passed a message of another's is kept, for ever, in ranges: no row for a message and a member.
//   - A message concerns those who were members when it was sent, but its sender: their receipts outlive the membership.
//   - Every accepted change is committed first, then told: to this node's [Feed] at once, to the other
//     nodes by the bus. What is told may be lost; the Feed finds the hole and reads the log.
//   - On every node the Feed handles each commit of a bucket once and in order while somebody keeps the bucket, and each change
//     of a membership of a user who is there, in any bucket (decision 10).
//   - The right to do a thing is decided inside the transaction that does it.
//   - A cursor that holds is of the database's present history: it names the run of the process that gave it
//     out, and lies no further than the heads stood when that run ended (decision 8).
//   - A follower is given every creation at least once, in the order of its bucket; who lost a lease, or whose run has ended,
//     saves no position.
//
// [Check] verifies what the tables can show of this.
//
// # Concurrency
// A [sqldb.Batcher] commits sends, another one what was read: one goroutine for each of their writers (one on SQLite). What was
// delivered is gathered in memory, and committed by a goroutine of its own once a second. All other changes are transactions
// of their callers. A Feed has one lane for each bucket; a lane's work is done
// by at most one goroutine at a time, which exists while there is work. One goroutine wakes lanes, one reads the log. One beats for the node's run. Run ends
// with all of them. [Chat.Follow] has its caller's goroutine, and one for each page that is handled.
//
// # Tables
// It alone writes buckets (but for their first rows), conversations, members, user_conversations, messages, receipts,
// past_members, checkpoints, runs, followers, follower_runs.
//
// # Not here
// Sockets and HTTP (gateway, rest); who a token belongs to (auth); what a text is judged to be (moderation).
package chat
