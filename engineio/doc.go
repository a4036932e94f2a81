// Package engineio is a server of the Engine.IO protocol, revision 4: sessions over WebSocket and HTTP long polling, with upgrade from the
// second to the first, and heartbeats.
//
// # Promises
//   - Messages of a connection reach its [Session] one at a time and in the order sent, across an upgrade too; Session.Close comes once, last.
//   - [Conn.Send] never blocks and keeps its order. What is queued is bounded ([Options.QueueBytesMax]) and so is how long it may stay
//     unwritten ([Options.WriteTimeout]); beyond either the connection is closed, never a frame dropped, unless it was marked droppable or volatile.
//   - A [Frame] is encoded once and shared by every connection that it is sent to, on both transports.
//   - Whatever a client sends costs no more than its own connection; a panic of a Session likewise.
//   - Every length, count and time that a client decides has a bound in [Options].
//   - After [Server.Shutdown] no goroutine of this package is left.
//
// # Goroutines and locks
//
// A WebSocket connection has one goroutine, its reader, which holds no buffer while it waits. It has no writer: a connection with something to
// write is put on the list of its shard, and the shard's flusher writes the whole queue in one non-blocking call. Only a socket that would block
// gets a goroutine to wait for it. One goroutine for each server turns the wheels that send heartbeats and find what has expired. A polling
// connection has no goroutine but those of its requests.
//
// Locks, outermost first: Conn.dispatch (held while the Session runs; the clock only tries it), Conn.mu (never across I/O or a callback), then as
// leaves shard.mu, wheel.mu and Server.mu.
//
// # Not here
//
// Socket.IO packets, namespaces and rooms (package socketio). Authentication. Compression: a chat message is too short to gain by it. WebTransport,
// JSONP and revision 3 of the protocol.
package engineio
