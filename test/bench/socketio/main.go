// Command socketio is package socketio as test/bench/gateway measures it: rooms in memory, and nothing else. It serves at the address
// that is its argument, and takes commands on standard input, a line each, as the servers that it is compared with do:
//
//	p room text   emits "message" with the text to the room
//	g             collects garbage and gives memory back
//
// A client emits "join" with the names of its rooms, separated by spaces, and gets an acknowledgement. It ends when its input does.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"parley/socketio"
)

func main() {
	profile := flag.String("cpuprofile", "", "`file` for a CPU profile of the time from the first command to the end")
	flag.Parse()
	if err := serve(flag.Arg(0), *profile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address, profile string) error {
	sockets := socketio.NewServer(socketio.Options{})
	main := sockets.Of("/")
	main.OnEvent(func(s *socketio.Socket, e *socketio.Event) {
		var rooms string
		if e.Name != "join" || len(e.Args) != 1 || json.Unmarshal(e.Args[0], &rooms) != nil {
			return
		}
		for room := range strings.FieldsSeq(rooms) {
			s.Join(room)
		}
		_ = e.Ack() // One that has gone needs none.
	})
	web := &http.Server{Addr: address, Handler: sockets, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- web.ListenAndServe() }()
	ended := make(chan error, 1)
	go func() { ended <- obey(main, profile) }()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}

// obey does what standard input says.
func obey(ns *socketio.Namespace, profile string) error {
	stdin, err := commands()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	for lines.Scan() {
		if profile != "" {
			file, err := os.Create(profile)
			if err != nil {
				return err
			}
			if err := pprof.StartCPUProfile(file); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
			profile = ""
		}
		command, rest, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "p":
			room, text, _ := strings.Cut(rest, " ")
			if err := ns.To(room).Emit("message", text); err != nil {
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
