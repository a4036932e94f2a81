// Command centrifuge is github.com/centrifugal/centrifuge as test/bench/gateway measures it: channels in memory without history or
// recovery, JSON over WebSocket, no log. It serves at the address that is its argument, and takes the same commands on standard input as
// ../socketio/main.go:
//
//	p room text   publishes the text, as a JSON string, in the channel
//	g             collects garbage and gives memory back
//
// A client names its channels, separated by spaces, in the data of its connect command, and is subscribed by the server. It ends when
// its input does. It is a module of its own, so that Parley's does not depend on what is only measured.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	delay := flag.Duration("write-delay", 0, "how long messages are collected for one write; 0: not at all, as by default")
	flag.Parse()
	if err := serve(flag.Arg(0), *delay); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string, delay time.Duration) error {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelNone})
	if err != nil {
		return err
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		var channels string
		if err := json.Unmarshal(e.Data, &channels); err != nil {
			return centrifuge.ConnectReply{}, centrifuge.ErrorBadRequest
		}
		reply := centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: e.ClientID},
			Subscriptions: map[string]centrifuge.SubscribeOptions{},
		}
		if delay > 0 {
			// As its documentation says of high rates: fewer, larger writes, without a limit on their messages.
			reply.WriteDelay, reply.MaxMessagesInFrame, reply.WriteWithTimer = delay, -1, true
		}
		for channel := range strings.FieldsSeq(channels) {
			reply.Subscriptions[channel] = centrifuge.SubscribeOptions{}
		}
		return reply, nil
	})
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		return err
	}
	// What it recommends for many idle connections; none of it makes a broadcast dearer.
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		ReadBufferSize: 512, UseWriteBufferPool: true, ProcessCommandsOffReadLoop: true,
	})
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(address, handler) }()
	ended := make(chan error, 1)
	go func() { ended <- obey(node) }()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}

// obey does what standard input says.
func obey(node *centrifuge.Node) error {
	stdin, err := commands()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	for lines.Scan() {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "p":
			channel, text, _ := strings.Cut(rest, " ")
			data, err := json.Marshal(text)
			if err != nil {
				return err
			}
			if _, err := node.Publish(channel, data); err != nil {
				return err
			}
		case "g":
			debug.FreeOSMemory()
		}
	}
	return lines.Err()
}

// commands is standard input, a pipe, to be read as a socket is. A read that blocks would keep the only processor from all others until the
// runtime notices, which no server that gets its messages from clients suffers.
func commands() (*os.File, error) {
	err := syscall.SetNonblock(syscall.Stdin, true)
	return os.NewFile(uintptr(syscall.Stdin), "stdin"), err
}
