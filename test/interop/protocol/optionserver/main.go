// Command optionserver is a server whose options are flags, for the interop tests of limits and of what a client does not see. It listens on
// loopback, prints its address on standard output, and serves until standard input ends.
//
//	/socket.io/ namespace / with the events below; all others are acknowledged with their arguments
//	              join rooms…            -> joins the rooms
//	              broadcast to except …  -> emits said, with the further arguments, to the rooms of the first array but not those of the second
//	              silent                 -> is never acknowledged
//	              hold                   -> emits holding to all; the handler waits until another client sends release
//	/engine.io/ echoes Engine.IO messages
//	/ends       answers with the reasons for which sockets and Engine.IO sessions have ended, as {"<id>": "<reason>"}
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"parley/engineio"
	"parley/socketio"
)

func main() {
	var engine engineio.Options
	flag.DurationVar(&engine.PingInterval, "ping-interval", 0, "engineio.Options.PingInterval, as are those that follow")
	flag.DurationVar(&engine.PingTimeout, "ping-timeout", 0, "")
	flag.DurationVar(&engine.UpgradeTimeout, "upgrade-timeout", 0, "")
	flag.DurationVar(&engine.MessageTimeout, "message-timeout", 0, "")
	flag.IntVar(&engine.MaxPayload, "max-payload", 0, "")
	flag.IntVar(&engine.PayloadPacketsMax, "payload-packets-max", 0, "")
	flag.Func("origins", "separated by commas", func(list string) error {
		engine.AllowedOrigins = strings.Split(list, ",")
		return nil
	})
	flag.BoolVar(&engine.Credentials, "credentials", false, "")
	flag.Func("cookie", "its name", func(name string) error {
		engine.Cookie = &http.Cookie{Name: name}
		return nil
	})
	flag.IntVar(&engine.ConnsMax, "conns-max", 0, "")
	flag.IntVar(&engine.AddressConnsMax, "address-conns-max", 0, "")
	flag.DurationVar(&engine.FirstPollTimeout, "first-poll-timeout", 0, "")
	var options socketio.Options
	flag.DurationVar(&options.AttachmentTimeout, "attachment-timeout", 0, "socketio.Options.AttachmentTimeout, as are those that follow")
	flag.DurationVar(&options.ConnectTimeout, "connect-timeout", 0, "")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	flag.Parse()
	options.Engine = engine

	ends := &ends{reasons: map[string]string{}}
	sockets := socketio.NewServer(options)
	handle(sockets.Of("/"), ends)
	engines := engineio.NewServer(engine, func(c *engineio.Conn, _ *http.Request) engineio.Session { return echo{c, ends} })

	mux := http.NewServeMux()
	mux.Handle("/socket.io/", sockets)
	mux.Handle("/engine.io/", engines)
	mux.Handle("/ends", ends)
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

// ends keeps why sockets and sessions have ended.
type ends struct {
	mu      sync.Mutex
	reasons map[string]string
}

func (e *ends) add(id, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reasons[id] = reason
}

func (e *ends) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = json.NewEncoder(w).Encode(e.reasons) // The client may be gone.
}

// echo sends back what an Engine.IO client sends.
type echo struct {
	conn *engineio.Conn
	ends *ends
}

func (e echo) Message(data []byte, binary bool) {
	f := engineio.BinaryFrame(data)
	if !binary {
		f = engineio.TextFrame(len(data), func(b []byte) []byte { return append(b, data...) })
	}
	_ = e.conn.Send(&f) // If the client has gone there is no one to tell.
}

func (e echo) Close(reason string) { e.ends.add(e.conn.ID(), reason) }

// handle gives the namespace its handlers.
func handle(ns *socketio.Namespace, ends *ends) {
	release := make(chan struct{})
	ns.OnDisconnect(func(s *socketio.Socket, reason string) { ends.add(s.ID(), reason) })
	ns.OnEvent(func(s *socketio.Socket, e *socketio.Event) {
		switch e.Name {
		case "join":
			for i := range e.Args {
				var room string
				decode(e, i, &room)
				s.Join(room)
			}
		case "broadcast":
			var to, except []string
			decode(e, 0, &to)
			decode(e, 1, &except)
			_ = ns.To(to...).Except(except...).Emit("said", args(e)[2:]...) // The arguments are JSON.
		case "silent":
			return
		case "hold":
			_ = ns.Emit("holding") // It has no arguments.
			<-release
		case "release":
			release <- struct{}{}
		}
		_ = e.Ack(args(e)...) // If the client has gone there is no one to tell.
	})
}

// decode decodes an argument of e, which is left as it is if it is of another type.
func decode(e *socketio.Event, i int, value any) {
	if i < len(e.Args) {
		_ = json.Unmarshal(e.Args[i], value) // As said.
	}
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
