package socketio_test

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"time"

	"parley/engineio"
	"parley/socketio"
)

// A small chat: clients present a name, join rooms, and speak to who else is there. An official client connects with
//
//	const socket = io("http://localhost:3000", { auth: { name: "ann" } });
//	socket.emit("join", "garden");
//	const { heard } = await socket.timeout(5000).emitWithAck("say", "garden", "hello");
func Example() {
	io := socketio.NewServer(socketio.Options{
		Engine: engineio.Options{AllowedOrigins: []string{"https://chat.example.com"}},
	})
	chat := io.Of("/")

	chat.OnAuth(func(h *socketio.Handshake) error {
		var auth struct{ Name string }
		if json.Unmarshal(h.Auth, &auth) != nil || auth.Name == "" {
			return &socketio.ConnectError{Message: "who are you?", Data: map[string]string{"code": "no_name"}}
		}
		h.Data = auth.Name
		return nil
	})
	chat.OnConnect(func(s *socketio.Socket) {
		chat.Except(s.ID()).Emit("came", s.Data())
	})
	chat.OnEvent(func(s *socketio.Socket, e *socketio.Event) {
		var room, text string
		if len(e.Args) > 0 {
			json.Unmarshal(e.Args[0], &room)
		}
		if len(e.Args) > 1 {
			json.Unmarshal(e.Args[1], &text)
		}
		switch e.Name {
		case "join":
			s.Join(room)
			e.Ack()
		case "say":
			others := chat.To(room).Except(s.ID())
			others.Emit("said", map[string]any{"room": room, "by": s.Data(), "text": text})
			e.Ack(map[string]int{"heard": len(others.Sockets())})
		}
	})
	chat.OnDisconnect(func(s *socketio.Socket, reason string) {
		chat.Emit("went", s.Data(), reason)
	})

	web := &http.Server{Addr: "localhost:3000", Handler: io, ReadHeaderTimeout: 10 * time.Second}
	go web.ListenAndServe()

	// At the end, official clients are told to come back, and do, to whoever serves then.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := io.Shutdown(ctx); err != nil {
		log.Print(err)
	}
	web.Close()
}
