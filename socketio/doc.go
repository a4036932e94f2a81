// Package socketio is a server of the Socket.IO protocol, revision 5, over package engineio: namespaces, events, acknowledgements in both
// directions, binary attachments, rooms, and namespaces by function. Any official client of version 3 or 4 connects to it.
//
// # Promises
//   - The handlers of a connection run one at a time, in the order in which the client sent: OnAuth, OnConnect, its events, OnDisconnect. While
//     one runs the connection's further packets wait.
//   - OnDisconnect is called once for each socket that OnConnect was called for, and nothing of that socket comes after it.
//   - Nothing that is sent to a socket precedes the packet that connected it.
//   - Send and Emit never block. A [Packet] is encoded once, whatever number of sockets it is sent to.
//   - What is no packet, or exceeds a limit of [Options], ends its connection with "parse error". A handler that panics ends its connection.
//   - JSON that reaches a handler is valid, and belongs to it: no buffer is shared or used again.
//
// # Locks
//
// Outermost first: that of the engine's session (held while handlers run), Namespace.mu (never across a callback), client.mu and Socket.mu,
// the engine's own. Server.mu is a leaf.
//
// # Not here
//
// Transports and heartbeats (package engineio). Who may connect, and what events mean: the user of this package. A log of what was sent: who has one recovers the state of a client
// with [Handshake] and [Socket.Sent]. Adapters between servers: who has a bus sends what comes over it to a [Target].
package socketio
