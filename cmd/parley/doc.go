// Command parley is the whole product in one binary: the server, and the commands for those who run it.
//
// # Commands
//   - serve: runs a node.
//   - token: prints a token that serve accepts.
//   - migrate: brings the database up to date, or says what is pending.
//   - doctor: verifies configuration and database.
//
// # Promises
//   - It exits with 0 when it did what was asked, with 1 when that failed and 2 when it was asked wrongly;
//     the reason is one sentence that names the setting to change.
//
// # Not here
// What the commands do: server builds a node, config reads the settings.
package main
