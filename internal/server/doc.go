// Package server builds every part of a node from the configuration, starts them in order and stops
// them in order.
//
// # Promises
//   - Run returns when everything it started has ended: no goroutine, port or file is left.
//   - When ctx ends, the node first says that it is not ready, then has its clients go elsewhere, finishes
//     the requests and sends under way, and closes the database last; all within the drain time-out.
//   - The node is ready only when its database answers and its log has been reached.
//
// # Not here
// What the parts do. Reading the configuration (config), and the command line (cmd/parley).
package server
