// Command echoserver is the Socket.IO server that the interop tests speak to: it sends back what it gets. It listens on loopback, prints its
// address on standard output, and serves until standard input ends, so that it does not outlive the test that started it.
//
//	/           echoes. OnConnect emits "auth" with the client's auth. Events:
//	              message          -> emits message-back with the same arguments
//	              message-with-ack -> acknowledges with the same arguments
//	              count from to    -> emits number from … to-1
//	              ask              -> emits question with an acknowledgement, then answer with what that held
//	              ask-room room    -> emits question to the room with an acknowledgement, then answers with what those held, and how many did not come in 500 ms
//	              join room, leave room, room room args -> rooms; room emits said to the room but the sender
//	              volatile n       -> emits tick 0 … n-1 as volatile packets, then ticked
//	              kick, cut        -> Disconnect(false), Disconnect(true)
//	              panic            -> panics
//	/custom     the same
//	/tenant-…   the same, in namespaces by function; the event tenants emits said to all of them
//	/private    refuses every auth whose token is not "open sesame"
//	/engine.io/ echoes Engine.IO messages
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"parley/engineio"
	"parley/socketio"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	pingInterval := flag.Duration("ping-interval", 25*time.Second, "time between pings")
	pingTimeout := flag.Duration("ping-timeout", 20*time.Second, "time for a pong")
	connectTimeout := flag.Duration("connect-timeout", 45*time.Second, "time to join a namespace")
	flag.Parse()

	engine := engineio.Options{
		PingInterval: *pingInterval,
		PingTimeout:  *pingTimeout,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	sockets := socketio.NewServer(socketio.Options{Engine: engine, ConnectTimeout: *connectTimeout})
	for _, name := range []string{"/", "/custom"} {
		echo(sockets.Of(name))
	}
	tenants := sockets.OfFunc(func(name string) bool { return strings.HasPrefix(name, "/tenant-") })
	echo(tenants)
	private := sockets.Of("/private")
	echo(private)
	private.OnAuth(func(h *socketio.Handshake) error {
		var auth struct{ Token string }
		if json.Unmarshal(h.Auth, &auth) != nil || auth.Token != "open sesame" {
			return &socketio.ConnectError{Message: "not authorized", Data: map[string]string{"code": "wrong_token"}}
		}
		return nil
	})
	engines := engineio.NewServer(engine, func(c *engineio.Conn, _ *http.Request) engineio.Session { return engineEcho{c} })

	mux := http.NewServeMux()
	mux.Handle("/socket.io/", sockets)
	mux.Handle("/engine.io/", engines)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // It ends by Close.
	fmt.Printf("http://%s\n", listener.Addr())

	_, _ = io.Copy(io.Discard, os.Stdin) // Its end is the signal, however it comes.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = server.Close()        // Only the listener and idle connections; hijacked ones are the servers' own.
	_ = sockets.Shutdown(ctx) // What is left after the time goes with the process.
	_ = engines.Shutdown(ctx) // As above.
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

// handlers are those of a namespace, or of a family.
type handlers interface {
	OnAuth(func(*socketio.Handshake) error)
	OnConnect(func(*socketio.Socket))
	OnEvent(func(*socketio.Socket, *socketio.Event))
	Emit(event string, args ...any) error
}

// echo gives a namespace or a family its handlers.
func echo(h handlers) {
	h.OnAuth(func(h *socketio.Handshake) error {
		h.Data = h.Auth
		return nil
	})
	h.OnConnect(func(s *socketio.Socket) {
		auth, _ := s.Data().(json.RawMessage)
		if auth == nil {
			auth = json.RawMessage("{}")
		}
		emit(s, "auth", auth)
	})
	h.OnEvent(func(s *socketio.Socket, e *socketio.Event) {
		ns := s.Namespace()
		switch e.Name {
		case "message":
			if p, err := socketio.NewBinaryPacket(s.Namespace().Name(), "message-back", e.Args, e.Attachments); err == nil { // as received, it fits
				_ = s.Send(p) // If the client has gone there is no one to tell.
			}
		case "message-with-ack":
			if err := e.AckBinary(e.Args, e.Attachments); err != nil {
				slog.Error("ack", "err", err)
			}
		case "count":
			for i := number(e, 0); i < number(e, 1); i++ {
				emit(s, "number", i)
			}
		case "ask":
			go ask(s)
		case "ask-room":
			go askRoom(s, text(e, 0))
		case "volatile":
			for i := range number(e, 0) {
				p, err := socketio.NewPacket(ns.Name(), "tick", i)
				if err != nil {
					panic(err) // A number can be encoded.
				}
				_ = s.Send(p.WithVolatile()) // If the client has gone there is no one to tell.
			}
			emit(s, "ticked")
		case "tenants":
			if err := h.Emit("said", args(e)...); err != nil {
				slog.Error("tenants", "err", err)
			}
		case "join":
			s.Join(text(e, 0))
		case "leave":
			s.Leave(text(e, 0))
		case "room":
			if err := ns.To(text(e, 0)).Except(s.ID()).Emit("said", args(e)[1:]...); err != nil {
				slog.Error("room", "err", err)
			}
		case "kick":
			s.Disconnect(false)
		case "cut":
			s.Disconnect(true)
		case "panic":
			panic("as the client wished")
		}
		if e.Name != "message-with-ack" {
			_ = e.Ack() // Nothing is sent if none is wanted.
		}
	})
}

func ask(s *socketio.Socket) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	reply, err := s.EmitWithAck(ctx, "question", "how are you?")
	if err != nil {
		emit(s, "answer", err.Error())
		return
	}
	answer := make([]any, len(reply))
	for i, arg := range reply {
		answer[i] = arg
	}
	emit(s, "answer", answer...)
}

func askRoom(s *socketio.Socket, room string) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	replies, missing, err := s.Namespace().To(room).EmitWithAck(ctx, "question", "who is there?")
	if err != nil {
		slog.Error("ask-room", "err", err)
		return
	}
	held := make([]any, len(replies))
	for i, r := range replies {
		held[i] = r.Args
	}
	emit(s, "answers", held, missing)
}

func emit(s *socketio.Socket, event string, args ...any) {
	_ = s.Emit(event, args...) // The arguments are JSON; if the client has gone there is no one to tell.
}

// args returns the arguments of e to be sent back.
func args(e *socketio.Event) []any {
	args := make([]any, len(e.Args))
	for i, arg := range e.Args {
		args[i] = arg
		if data, ok := e.Attachment(i); ok {
			args[i] = data
		}
	}
	return args
}

func number(e *socketio.Event, i int) int {
	var n int
	if i < len(e.Args) {
		_ = json.Unmarshal(e.Args[i], &n) // Anything else counts as 0.
	}
	return n
}

func text(e *socketio.Event, i int) string {
	var s string
	if i < len(e.Args) {
		_ = json.Unmarshal(e.Args[i], &s) // Anything else is no room's name.
	}
	return s
}
