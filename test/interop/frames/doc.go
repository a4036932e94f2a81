// Package frames holds tests of the WebSocket frames of package engineio, with peers that share no code with it: the library
// coder/websocket, and sockets on which this package writes frames byte by byte as RFC 6455 has them, or as it forbids them.
//
// # Promises
//   - What RFC 6455 allows a client is echoed unchanged, however it was cut into frames, segments and masks.
//   - What it forbids, and what exceeds a limit of engineio.Options, is answered with the close code that it names, and ends that connection only.
//   - Nothing waits for a time to pass: a test waits for bytes, or for the end of a session, with a deadline.
//
// # Not here
// The same frames from npm's ws (test/interop/protocol). What the frames carry: packets, upgrades and heartbeats (package engineio).
package frames
