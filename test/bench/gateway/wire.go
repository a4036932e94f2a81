package main

import (
	"bytes"
	"errors"
	"fmt"

	"parley/test/bench"
)

// A wire is what a contender's clients speak over WebSocket. Its methods know the few packets that the server sends by their first bytes
// and parse no JSON; the official clients judge the protocols elsewhere.
type wire interface {
	// target is the path and query of the opening handshake.
	target() string
	// enter connects and joins the rooms, as the user of that number, and returns when the server has confirmed it.
	enter(c *bench.Conn, user int, rooms string) error
	// take handles one text: it calls deliver for each message in it, with what begins with the message's own text, and returns what is to
	// be answered, if anything. An error ends the connection.
	take(packet []byte, deliver func(text []byte)) (answer string, err error)
}

// errRefused says that the server did not let a client in, or put it out.
var errRefused = errors.New("the server refused")

// await reads until a text begins with prefix, answering heartbeats meanwhile.
func await(c *bench.Conn, w wire, prefix string) error {
	for {
		packet, err := c.Read()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(packet, []byte(prefix)) {
			return nil
		}
		answer, err := w.take(packet, func([]byte) {})
		if err == nil && answer != "" {
			err = c.Write(answer)
		}
		if err != nil {
			return err
		}
	}
}

// socketIO is spoken by the gateway, by Node's server and by the floor.
type socketIO struct{}

func (socketIO) target() string { return "/socket.io/?EIO=4&transport=websocket" }

func (w socketIO) enter(c *bench.Conn, _ int, rooms string) error {
	if err := c.Write("40"); err != nil {
		return err
	}
	if err := await(c, w, "40"); err != nil {
		return err
	}
	if err := c.Write(`420["join","`, rooms, `"]`); err != nil {
		return err
	}
	return await(c, w, "430[")
}

var socketIOMessage = []byte(`42["message","`)

func (socketIO) take(packet []byte, deliver func(text []byte)) (string, error) {
	if text, ok := bytes.CutPrefix(packet, socketIOMessage); ok {
		deliver(text)
		return "", nil
	}
	return engineIO(packet)
}

// engineIO handles what is no event: heartbeats, and the end.
func engineIO(packet []byte) (string, error) {
	switch {
	case len(packet) == 1 && packet[0] == '2':
		return "3", nil
	case bytes.HasPrefix(packet, []byte("44")), bytes.HasPrefix(packet, []byte("41")), len(packet) == 1 && packet[0] == '1':
		return "", fmt.Errorf("%w: %.200s", errRefused, packet)
	}
	return "", nil
}

// parleyWire is spoken by the whole of Parley, whose rooms are its users' conversations.
type parleyWire struct{ token func(user int) string }

func (parleyWire) target() string { return socketIO{}.target() }

func (w parleyWire) enter(c *bench.Conn, user int, _ string) error {
	if err := c.Write(`40{"token":"`, w.token(user), `"}`); err != nil {
		return err
	}
	return await(c, w, `42["authenticated",`)
}

var (
	parleyMessage = []byte(`42["new-message",`)
	parleyRefusal = []byte(`"ok":false`)
	contentBegins = []byte(`"content":"`)
)

func (parleyWire) take(packet []byte, deliver func(text []byte)) (string, error) {
	if bytes.HasPrefix(packet, parleyMessage) {
		_, text, _ := bytes.Cut(packet, contentBegins)
		deliver(text)
		return "", nil
	}
	if bytes.HasPrefix(packet, []byte("43")) && bytes.Contains(packet, parleyRefusal) {
		return "", fmt.Errorf("%w: %.200s", errRefused, packet)
	}
	return engineIO(packet)
}

// centrifugeWire is the JSON protocol of Centrifuge: a frame is one or more objects, each on a line of its own.
type centrifugeWire struct{}

func (centrifugeWire) target() string { return "/connection/websocket" }

func (w centrifugeWire) enter(c *bench.Conn, _ int, rooms string) error {
	if err := c.Write(`{"id":1,"connect":{"data":"`, rooms, `"}}`); err != nil {
		return err
	}
	return await(c, w, `{"id":1,"connect":`)
}

var (
	centrifugePush = []byte(`{"push":{"channel":"`)
	dataBegins     = []byte(`"data":"`)
)

func (centrifugeWire) take(packet []byte, deliver func(text []byte)) (answer string, err error) {
	for len(packet) > 0 {
		line := packet
		if end := bytes.IndexByte(packet, '\n'); end >= 0 {
			line, packet = packet[:end], packet[end+1:]
		} else {
			packet = nil
		}
		if bytes.HasPrefix(line, centrifugePush) {
			if _, text, found := bytes.Cut(line, dataBegins); found {
				deliver(text)
				continue
			}
		}
		if string(line) == "{}" {
			answer = "{}" // Its ping, and pong.
		} else {
			return "", fmt.Errorf("%w: %.200s", errRefused, line)
		}
	}
	return answer, nil
}
