package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley/test/bench"
)

const (
	openMax = 30 * time.Second
	// pollMax bounds one poll: longer than the server's ping interval, which answers it.
	pollMax = time.Minute
	// bufferBytes is the read buffer of a WebSocket.
	bufferBytes = 4 << 10
)

const socketPath = "/socket.io/?EIO=4&transport="

// A link carries Engine.IO packets, over WebSocket or by polling. One goroutine reads, and any may write.
type link interface {
	// Read returns the next packet, valid until the next call.
	Read() ([]byte, error)
	// Write sends a packet made of parts.
	Write(parts ...string) error
	// end ends it in one of the ways that it knows, and returns which it was.
	end(how string) string
}

// Ways for a connection to end.
const (
	cleanly   = "DISCONNECT, then closed"
	engineEnd = "close packet"
	byFIN     = "closed without a word"
	byRST     = "reset"
	vanished  = "vanished without FIN"
	frozen    = "frozen until the server's ping timeout"
	abandoned = "polls no more"
)

// wsLink is a WebSocket.
type wsLink struct{ *bench.Conn }

// frozenMax is how long a frozen connection is left open: longer than the server's ping interval and timeout.
const frozenMax = time.Minute

func (l wsLink) end(how string) string {
	switch how {
	case cleanly:
		_ = l.Write("41") // If it fails it is closed without a word.
	case engineEnd:
		_ = l.Write("1") // As above.
	case byRST:
		_ = l.TCP.SetLinger(0) // As above.
	case vanished:
		if !forget(l.TCP) {
			how = byRST
			_ = l.TCP.SetLinger(0) // As above.
		}
	case frozen:
		time.AfterFunc(frozenMax, l.Close)
		return frozen
	}
	l.Close()
	return how
}

// forget makes the kernel drop the connection without telling its peer when it is closed (TCP_REPAIR), and reports whether it may.
func forget(conn *net.TCPConn) bool {
	const tcpRepair = 19 // It is missing in package syscall.
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRepair, 1) })
	return err == nil && failed == nil
}

// dialWebSocket connects straight to the WebSocket transport.
func dialWebSocket(ctx context.Context, address string) (link, error) {
	conn, err := bench.Dial(ctx, address, socketPath+"websocket", bufferBytes)
	return wsLink{conn}, err
}

// pollLink begins by polling. After upgradeAfter, if that is not 0, it goes over to WebSocket.
type pollLink struct {
	address   string
	sid       string
	web       *http.Client
	transport *http.Transport
	ctx       context.Context
	cancel    context.CancelFunc
	upgradeAt time.Time
	packets   [][]byte // polled, not read yet
	mu        sync.Mutex
	ws        *wsLink // after the upgrade
}

var errStatus = errors.New("status")

// dialPolling opens a session by polling.
func dialPolling(ctx context.Context, address string, upgradeAfter time.Duration) (*pollLink, error) {
	l := &pollLink{address: address, transport: &http.Transport{}}
	l.web = &http.Client{Transport: l.transport, Timeout: pollMax}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if upgradeAfter > 0 {
		l.upgradeAt = time.Now().Add(upgradeAfter)
	}
	packets, err := l.poll()
	if err != nil {
		l.end(abandoned)
		return nil, err
	}
	l.packets = packets
	_, sid, _ := bytes.Cut(packets[0], []byte(`"sid":"`))
	name, _, found := bytes.Cut(sid, []byte(`"`))
	if !found {
		l.end(abandoned)
		return nil, fmt.Errorf("the handshake is %.100q", packets[0])
	}
	l.sid = string(name)
	return l, nil
}

// request does one request of the session.
func (l *pollLink) request(method, body string) ([]byte, error) {
	url := "http://" + l.address + socketPath + "polling"
	if l.sid != "" {
		url += "&sid=" + l.sid
	}
	request, err := http.NewRequestWithContext(l.ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := l.web.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %w %s: %.100q", method, errStatus, response.Status, answer)
	}
	return answer, err
}

// poll gets the packets that wait, one at least (Engine.IO protocol 4, "HTTP long-polling").
func (l *pollLink) poll() ([][]byte, error) {
	answer, err := l.request(http.MethodGet, "")
	return bytes.Split(answer, []byte{0x1e}), err
}

func (l *pollLink) Read() ([]byte, error) {
	for {
		if len(l.packets) > 0 {
			packet := l.packets[0]
			l.packets = l.packets[1:]
			return packet, nil
		}
		if l.ws != nil { // Only this goroutine sets it.
			return l.ws.Read()
		}
		var err error
		if !l.upgradeAt.IsZero() && time.Now().After(l.upgradeAt) {
			err = l.upgrade()
		} else {
			l.packets, err = l.poll()
		}
		if err != nil {
			return nil, err
		}
	}
}

// upgrade goes over to WebSocket, with a poll under way (Engine.IO protocol 4, "Upgrade"). Nothing is written meanwhile.
func (l *pollLink) upgrade() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	polled := make(chan error, 1)
	go func() {
		var err error
		l.packets, err = l.poll()
		polled <- err
	}()
	err := l.probe()
	if failed := <-polled; err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return l.ws.Write("5")
}

func (l *pollLink) probe() error {
	conn, err := bench.Dial(l.ctx, l.address, socketPath+"websocket&sid="+l.sid, bufferBytes)
	if err != nil {
		return err
	}
	l.ws = &wsLink{conn}
	if err := conn.Write("2probe"); err != nil {
		return err
	}
	answer, err := conn.Read()
	if err == nil && string(answer) != "3probe" {
		err = fmt.Errorf("the answer to the probe is %.100q", answer)
	}
	return err
}

func (l *pollLink) Write(parts ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ws != nil {
		return l.ws.Write(parts...)
	}
	_, err := l.request(http.MethodPost, strings.Join(parts, ""))
	return err
}

func (l *pollLink) end(how string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.transport.CloseIdleConnections()
	defer l.cancel()
	if l.ws != nil {
		return l.ws.end(how)
	}
	if how != cleanly && how != engineEnd {
		return abandoned
	}
	_, _ = l.request(http.MethodPost, map[string]string{cleanly: "41", engineEnd: "1"}[how]) // If it fails the session is abandoned.
	return how
}
