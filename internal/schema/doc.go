// Package schema owns the shape of the database: the numbered migrations of both engines, and the
// table meta, in which the database says what it is.
//
// # Promises
//   - Migrate brings a database of any released version to this one, and is safe to run on several
//     nodes at once; a migration once released is never edited.
//   - The number of buckets and the epoch stand in meta from the first migration on. A database made
//     with another number of buckets is refused.
//   - The tables of the two engines have the same names and columns.
//
// # Tables
// It alone writes meta. Each table names its owner in the migration that makes it.
//
// # Not here
// What stands in the tables (their owners).
package schema
