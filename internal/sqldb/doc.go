// Package sqldb owns the connections to SQL: it opens SQLite or PostgreSQL, runs transactions and
// commits many requests together.
//
// # Promises
//   - When [DB.InTx] returns nil, the transaction is on disk: SQLite runs in WAL mode with
//     synchronous=FULL, PostgreSQL with synchronous_commit on, and a server with fsync off is refused.
//   - What [Tx.AfterCommit] was given runs after the commit and only then, in the order given.
//   - [DB.Read] never waits for a writer, and sees one snapshot.
//   - On SQLite there is one writer at a time; those who call [DB.InTxUrgent] go before the others.
//   - A [Batcher] commits what waits together, in the order in which it came for a lane.
//   - A COMMIT whose outcome is not known is reported as [ErrCommitUnknown] and nothing else is.
//
// # Concurrency
// A SQLite database has one writing connection, guarded by a turnstile, a handful of reading ones in
// a channel, and one goroutine that checkpoints the WAL over a connection of its own. A Batcher has
// one goroutine for each of its writers. All end with Close and Run.
//
// # Not here
// The tables (package schema) and what stands in them (their owners).
package sqldb
