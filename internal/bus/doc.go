// Package bus carries hints between the parts of a node and between nodes, over NATS.
//
// By default the NATS server runs in this process and opens no port; as a node of a cluster it opens a route
// port only; or there is none, and the bus connects to an outside NATS.
//
// # Promises
//   - [Bus.Tell] never waits for the network, for a stalled server or for a subscriber.
//   - The messages of one [Subscription] come one at a time. Messages of one node come in the order it told them.
//   - Everything is bounded: what waits to be told, and what waits for a subscription. What does not fit is
//     dropped and counted ([Bus.Stats], [Subscription.Dropped]).
//   - An outside NATS that is down, at the start or later, is an outage of the bus and not of the node: the bus
//     reconnects for ever, and calls the functions given to [Bus.OnReconnect].
//   - A question ([Bus.Ask]) gets the whole answer of the one who gave [Bus.Answer] for its subject, or an error: at once
//     when there is nobody, and in seconds when he or the way to him is gone. He learns as soon that nobody waits.
//     Questions, answers and their bytes under way are bounded; bodies and answers go in pieces that any NATS takes.
//   - After [Bus.Close] no goroutine of the bus or of its server is left.
//
// # Not promised
// Delivery of what is told. A hint may be lost (while a connection or route is broken, before a new subscription is known on other
// nodes, or at a full queue), so whoever relies on one also reads SQL, which is the only truth: JetStream is off.
// Messages of different nodes come in no common order.
//
// # Subjects
//   - parley.log.<bucket>: something was committed in this bucket of the log.
//   - parley.members: memberships of these users changed.
//   - parley.node.<name>: questions to one node.
//   - chat.>: the public subjects, for other programs on the same NATS.
//
// # Not here
// What is told and what it means (chat, presence); the durable feed (the log, in SQL).
package bus
