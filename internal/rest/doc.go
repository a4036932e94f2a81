// Package rest is the HTTP face: it turns requests into calls of chat and auth, and their answers into JSON.
//
// The table in routes.go is the list of what exists. The mux, the OpenAPI document, the page at /docs and
// docs/reference/rest.md all come from it, and a request's and an answer's schema from the types of its handler.
//
// # Promises
//   - It decides nothing. A request is decoded and bounded here, once; what it means is chat's.
//   - Every failure is an RFC 9457 problem with the code of package problem, the router's own 404 and 405 included. It
//     never repeats what was sent and never shows an internal cause: the log has that, under the request id.
//   - Every response has an X-Request-Id, drawn here; the client's own is not taken over.
//   - A panic ends its own request only, is counted, and is logged with its stack.
//   - Nothing waits but on chat, auth and the client; how long the client may take is the http.Server's to say.
//
// # Decisions
// Of huma the OpenAPI types and the schemas are used, not its handlers: those decode before we can look at the bytes,
// answer 422, and put the refused value into the error. A body is JSON whatever its Content-Type says: no cookie signs a
// request, so a form of another site gains nothing by it, and "curl -d" works.
//
// # Not here
// Sockets (gateway); listening and its time-outs (server); Idempotency-Key (a client_message_id makes a send safe to
// repeat); quotas and their headers.
package rest
