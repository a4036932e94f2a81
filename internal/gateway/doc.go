// Package gateway is the face that Socket.IO clients see: it signs sockets in, turns their events into
// calls, and brings what is committed to the sockets of those whom it concerns.
//
// # Promises
//   - Nothing but authenticate is done for a socket before it has signed in. What it sends before, or
//     behind a first authenticate that is under way, is held within a bound and done after.
//   - A socket's events are done in the order in which they came. Sends follow each other without waiting
//     for the answer; everything else waits for the sends before it.
//   - A signed-in socket gets every change of its user's conversations from the position that its sign-in
//     gave it, once and in order: with a cursor first what it missed, then what is new, with no gap between.
//   - A member who was removed gets nothing that stands behind the removal in the log, one who was
//     added everything behind that.
//   - A polling request is answered as its session's owner answers it, whichever node of a cluster it reaches.
//   - A failure is answered in the acknowledgement, and as an error event; it harms one socket at the most.
//
// # Concurrency
// The rooms of a bucket are changed only by the lane of that bucket (package chat, Feed), which needs no
// lock for them, and stays awake as long as there is one. A user has a lock for its list of sockets, a session one for its state; where several are
// held the order is hub, user, session. One goroutine sweeps over the sessions once a second: deadlines,
// tokens that end, cursors.
//
// # Not here
// The protocol (socketio), the rules (chat), tokens (auth).
package gateway
