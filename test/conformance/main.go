// Command conformance serves what the public test suites of the Engine.IO 4 and Socket.IO 5 protocols expect of a server under test, with the
// times and bounds that they assume. The suites (socketio/engine.io-protocol and socketio/socket.io-protocol on GitHub, folder test-suite) run
// against http://localhost:3000, which is the default here too. It serves until it is told to end by a signal.
//
//	/engine.io/  Engine.IO: every message comes back, text as text and binary as binary
//	/socket.io/  Socket.IO: the namespaces / and /custom. After CONNECT the server emits "auth" with the client's auth. Events:
//	               message          -> emits message-back with the same arguments
//	               message-with-ack -> acknowledges with the same arguments
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"parley/engineio"
	"parley/socketio"
)

func main() {
	addr := flag.String("addr", "localhost:3000", "address to listen on")
	pingInterval := flag.Duration("ping-interval", 300*time.Millisecond, "time between pings")
	pingTimeout := flag.Duration("ping-timeout", 200*time.Millisecond, "time for a pong")
	maxPayload := flag.Int("max-payload", 1_000_000, "largest message in bytes")
	connectTimeout := flag.Duration("connect-timeout", time.Second, "time to join a namespace")
	flag.Parse()

	engine := engineio.Options{
		PingInterval: *pingInterval,
		PingTimeout:  *pingTimeout,
		MaxPayload:   *maxPayload,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if err := serve(*addr, engine, *connectTimeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve listens until a signal ends it.
func serve(addr string, engine engineio.Options, connectTimeout time.Duration) error {
	engines := engineio.NewServer(engine, func(c *engineio.Conn, _ *http.Request) engineio.Session { return engineEcho{c} })
	sockets := socketio.NewServer(socketio.Options{Engine: engine, ConnectTimeout: connectTimeout})
	for _, name := range []string{"/", "/custom"} {
		echo(sockets.Of(name))
	}
	mux := http.NewServeMux()
	mux.Handle("/engine.io/", engines)
	mux.Handle("/socket.io/", sockets)
	web := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- web.ListenAndServe() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = web.Close() // The listener and idle connections; those that were taken over are the servers' own.
		<-ended
	}
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if cut := errors.Join(engines.Shutdown(last), sockets.Shutdown(last)); cut != nil && !errors.Is(cut, context.DeadlineExceeded) {
		err = errors.Join(err, cut)
	}
	return err
}

// engineEcho sends back what an Engine.IO client sends.
type engineEcho struct{ conn *engineio.Conn }

func (e engineEcho) Message(data []byte, binary bool) {
	f := engineio.BinaryFrame(data)
	if !binary {
		f = engineio.TextFrame(len(data), func(b []byte) []byte { return append(b, data...) })
	}
	_ = e.conn.Send(&f) // If the client has gone there is no one to tell.
}

func (engineEcho) Close(string) {}

// echo gives a namespace its handlers.
func echo(ns *socketio.Namespace) {
	ns.OnAuth(func(h *socketio.Handshake) error {
		h.Data = h.Auth
		return nil
	})
	ns.OnConnect(func(s *socketio.Socket) {
		auth, _ := s.Data().(json.RawMessage)
		if auth == nil {
			auth = json.RawMessage("{}")
		}
		// Not at once: the suite waits for the answer to CONNECT and only then begins to listen for the next message. If both frames come in one
		// TCP segment its WebSocket hands out both before the suite listens again, and it waits for "auth" for ever.
		time.AfterFunc(5*time.Millisecond, func() { emit(s, "auth", auth) })
	})
	ns.OnEvent(func(s *socketio.Socket, e *socketio.Event) {
		switch e.Name {
		case "message":
			// What was received has placeholders that fit.
			if p, err := socketio.NewBinaryPacket(s.Namespace().Name(), "message-back", e.Args, e.Attachments); err == nil {
				_ = s.Send(p) // If the client has gone there is no one to tell.
			}
		case "message-with-ack":
			_ = e.AckBinary(e.Args, e.Attachments) // As above.
		}
	})
}

func emit(s *socketio.Socket, event string, args ...any) {
	_ = s.Emit(event, args...) // If the client has gone there is no one to tell.
}
