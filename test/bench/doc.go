// Package bench is what the programs that measure servers share: child processes kept to cores of their own, with their
// memory and time as the kernel counts them; WebSocket connections that cost little to read; a Parley to sign in to; a
// histogram; and the writing of a report into its place on a page.
//
// # Promises
//   - What is started here ends with the process that started it, killed or not, and speaks to loopback only.
//   - It imports nothing of the product: Parley is measured as a built program, through its public wire, as the others are.
//   - The bytes of a received message are checked and counted by one code path, whoever sent them.
//
// # Not here
// What is measured: test/load (the whole of Parley on both databases), test/bench/gateway (its gateway beside Socket.IO's own
// server and Centrifuge), test/bench/soak (Parley for a long time under clients that come and go).
package bench
