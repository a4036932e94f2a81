// Package sqldbtest gives tests real databases: a fresh one for each test, on both engines.
//
// # Promises
//   - A database holds the present schema and nothing else, is seen by one test only, and is gone after it.
//   - Nothing is skipped: where PostgreSQL's server binaries are missing the test fails, and says what to run.
//   - A test that names its checks ends with them, on the database as the test left it.
//
// # How it gets them
// SQLite's are files in the test's temporary folder. PostgreSQL's are in the cluster that PARLEY_TEST_POSTGRES_URL leads
// to, which should be one that is thrown away ("make test" starts it, package parley/test/postgres); without that
// variable each test process starts such a cluster of its own. The schema is brought up once a process for each engine,
// and copied from then on. So the databases of one process share what a migration draws at random, such as the epoch;
// a test that needs another begins with [OpenPostgresURL], or a SQLite file of its own.
//
// # Not here
// What must hold in a database: its owner knows (chat.Check), and the test hands it in.
package sqldbtest
