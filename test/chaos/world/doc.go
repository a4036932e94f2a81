// Package world runs what the chaos harness tests, and does it harm: real `parley serve` processes, with the PostgreSQL and the
// NATS that they use, and faults to inject into each of them.
//
// # Promises
//   - A node keeps its address and its data folder over all its restarts.
//   - A fault has begun when Inject returns, not sooner or later, and what it did is undone when its heal returns: the nodes are
//     running and ready again, but for those that another fault harms still. Tests of this package show both for every fault.
//   - Nothing outside is touched. Everything listens on loopback; what cuts connections, and what mounts, does so in namespaces
//     that [Isolate] made for this process, and which end with it. What is killed was started here, and is named by its id.
//   - Nothing is left behind: processes end with the one that started them, killed or not; memory groups have its id in their
//     name, and the next world removes those of processes that are gone.
//   - What this machine cannot do is left out and said: [World.Missing].
//
// # Why namespaces rather than proxies
// A filter in the kernel drops the packets of a connection as a broken network does: the sender's data waits unacknowledged, is
// sent again, and arrives if the cut ends in time. A proxy would take the data and lose it, which no network does, would hide
// from the server that its peer does not read, and would cost more CPU time than the server. And NATS tells its nodes of each
// other's addresses, so that they would connect around a proxy. Because all processes of a world share one new namespace,
// there are no addresses, pairs of interfaces or names to make and to clean up: loopback and port numbers are enough.
//
// # Not here
// Clients, the record and what is checked in it (test/chaos).
package world
