// Command floor does what no server can do without: for each message it writes the bytes that package socketio would write to the sockets
// of a room, and nothing else. test/bench/gateway runs it beside the servers to see how far they are from the cost of the system calls
// alone. It takes the same commands and clients as ../socketio, for which it knows just enough of the protocol: no checks, no heartbeats,
// no queues; where a socket would block all wait.
//
// By default each message is written to each socket by a call of its own. With -batch everything that waits on standard input is joined
// first, so that a socket gets all of it in one call.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// rooms are the descriptors in each room.
type rooms struct {
	mu     sync.Mutex
	byName map[string]*room
}

type room struct {
	sockets []int
	pending []byte // frames to be written; of obey alone
}

func main() {
	batch := flag.Bool("batch", false, "join the messages that wait")
	flag.Parse()
	if err := serve(flag.Arg(0), *batch); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string, batch bool) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	r := &rooms{byName: map[string]*room{}}
	failed := make(chan error, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				failed <- err
				return
			}
			go func() { _ = r.client(conn.(*net.TCPConn)) }() // However it ends, nobody asks.
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- r.obey(batch) }()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}

// client shakes hands and puts the connection into its rooms. The masks of the load generator are zeros, and are left as they are.
func (r *rooms) client(conn *net.TCPConn) error {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 1<<10)
	if _, err := http.ReadRequest(in); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"+
		"\x81\x0a0{\"sid\":1}"); err != nil {
		return err
	}
	for {
		text, err := frame(in)
		if err != nil {
			return err
		}
		answer := ""
		if id, ok := strings.CutPrefix(text, "42"); ok {
			id, names, _ := strings.Cut(id, `["join","`)
			r.join(conn, strings.Fields(strings.TrimSuffix(names, `"]`)))
			answer = "43" + id + "[]"
		} else if strings.HasPrefix(text, "40") {
			answer = `40{"sid":1}`
		}
		if _, err := conn.Write(appendFrame(nil, answer)); err != nil {
			return err
		}
	}
}

// frame reads a masked frame of less than 64 KiB.
func frame(in *bufio.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return "", err
	}
	length := int(head[1] & 0x7F)
	if length == 126 {
		var long [2]byte
		if _, err := io.ReadFull(in, long[:]); err != nil {
			return "", err
		}
		length = int(binary.BigEndian.Uint16(long[:]))
	}
	text := make([]byte, 4+length)
	_, err := io.ReadFull(in, text)
	return string(text[4:]), err
}

func appendFrame(b []byte, parts ...string) []byte {
	n := len(strings.Join(parts, ""))
	if n < 126 {
		b = append(b, 0x81, byte(n))
	} else {
		b = append(b, 0x81, 126, byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func (r *rooms) join(conn *net.TCPConn, names []string) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // It is open: this is its reader.
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, name := range names {
			if r.byName[name] == nil {
				r.byName[name] = &room{}
			}
			r.byName[name].sockets = append(r.byName[name].sockets, int(fd))
		}
	})
}

// obey does what standard input says.
func (r *rooms) obey(batch bool) error {
	stdin, err := commands()
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(stdin, 64<<10)
	var dirty []*room
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, text, found := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "p "), "\n"), " ")
		r.mu.Lock()
		room := r.byName[name]
		r.mu.Unlock()
		if !found || room == nil {
			continue
		}
		if len(room.pending) == 0 {
			dirty = append(dirty, room)
		}
		room.pending = appendFrame(room.pending, `42["message","`, text, `"]`)
		if batch && lineWaits(in) {
			continue
		}
		for _, room := range dirty {
			for _, fd := range room.sockets {
				if err := write(fd, room.pending); err != nil {
					return err
				}
			}
			room.pending = room.pending[:0]
		}
		dirty = dirty[:0]
	}
}

// lineWaits reports whether there is a line that has been read already, or more in the pipe.
func lineWaits(in *bufio.Reader) bool {
	waiting, _ := in.Peek(in.Buffered()) // It has these.
	if bytes.IndexByte(waiting, '\n') >= 0 {
		return true
	}
	more, err := unix.IoctlGetInt(syscall.Stdin, unix.TIOCINQ)
	return err == nil && more > 0
}

func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != syscall.EINTR {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// commands is standard input, a pipe, to be read as a socket is. A read that blocks would keep the only processor from all others until the
// runtime notices, which no server that gets its messages from clients suffers.
func commands() (*os.File, error) {
	err := syscall.SetNonblock(syscall.Stdin, true)
	return os.NewFile(uintptr(syscall.Stdin), "stdin"), err
}
