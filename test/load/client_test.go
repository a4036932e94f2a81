package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// peer is the server's end of one connection, for what the real server is never asked to do on purpose: it is scripted
// frame by frame. TestSmallRun has the real one.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// connected returns a client that is signed in, and its peer.
func connected(t *testing.T, bufferBytes int) (*client, *peer) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan *peer, 1)
	go func() {
		defer close(accepted)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		p := &peer{t: t, conn: conn, in: bufio.NewReader(conn)}
		if _, err := http.ReadRequest(p.in); err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		p.send(`0{"sid":"x"}`)
		if got := p.receive(); got != `40{"token":"secret"}` {
			t.Errorf("the first packet is %q", got)
		}
		p.send(`40{"sid":"y"}`)
		p.send(`42["authenticated",{"user_id":"ann"}]`)
		accepted <- p
	}()
	c, err := dial(t.Context(), listener.Addr().String(), "secret", bufferBytes, newTally())
	if err != nil {
		t.Fatal(err)
	}
	p := <-accepted
	t.Cleanup(func() {
		p.conn.Close()
		c.close()
	})
	return c, p
}

func (p *peer) send(text string) {
	b := []byte{0x81}
	switch n := len(text); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	if _, err := p.conn.Write(append(b, text...)); err != nil {
		p.t.Errorf("the peer cannot write: %v", err)
	}
}

// receive reads a masked frame of less than 64 KiB.
func (p *peer) receive() string {
	p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var head [2]byte
	_, err := io.ReadFull(p.in, head[:])
	n := int(head[1] & 0x7f)
	if err == nil && n == 126 {
		var long [2]byte
		_, err = io.ReadFull(p.in, long[:])
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	text := make([]byte, 4+n)
	if err == nil {
		_, err = io.ReadFull(p.in, text)
	}
	if err != nil || head[0] != 0x81 || head[1]&0x80 == 0 {
		p.t.Errorf("the peer read a frame that begins with %#x, %v", head, err)
		return ""
	}
	for i := range n {
		text[4+i] ^= text[i%4]
	}
	return string(text[4:])
}

func TestClientCountsFramesOfAllLengths(t *testing.T) {
	c, p := connected(t, 256)
	const event = `42["new-message",{"id":"m","content":"1 hello`
	for _, n := range []int{60, 125, 126, 255, 256, 257, 1000, 65535, 65536, 300_000} {
		p.send(event + strings.Repeat("x", n-len(event)-3) + `"}]`)
	}
	p.send("2")
	if got := p.receive(); got != "3" {
		t.Errorf("the answer to a ping is %q, want 3", got)
	}
	if got := c.tally.deliveries.Load(); got != 10 {
		t.Errorf("%d deliveries, want 10", got)
	}
	if got := c.tally.endToEnd.Load().Count(); got != 10 {
		t.Errorf("%d of them were timed, want 10", got)
	}
}

func TestClientSendsAndHearsTheAck(t *testing.T) {
	c, p := connected(t, idleBuffer)
	done := make(chan error, 1)
	for i, ack := range []string{`431[{"ok":true,"message":{}}]`, `432[{"ok":false,"error":{"code":"forbidden"}}]`} {
		go func() { done <- c.send(t.Context(), "conversation") }()
		if got := p.receive(); !strings.HasPrefix(got, "42"+ack[2:3]+`["send-message",{"conversation_id":"conversation","content":"`) {
			t.Errorf("packet %d is %q", i+1, got)
		}
		p.send(ack)
		if err := <-done; err != nil {
			t.Errorf("send %d: %v", i+1, err)
		}
	}
	if acks, refused := c.tally.acks.Load(), c.tally.refused.Load(); acks != 1 || refused != 1 {
		t.Errorf("%d acks and %d refusals, want one of each", acks, refused)
	}
	if why := c.tally.refusal.Load(); why == nil || !strings.Contains(*why, "forbidden") {
		t.Errorf("the refusal is %v, want the server's words", why)
	}
}

func TestClientNoticesTheEnd(t *testing.T) {
	for _, last := range []string{"41", "1", `44{"message":"no"}`} {
		c, p := connected(t, idleBuffer)
		p.send(last)
		<-c.ended
		if lost := c.tally.lost.Load(); lost != 1 {
			t.Errorf("after %s, %d connections are lost, want 1", last, lost)
		}
	}
	c, _ := connected(t, idleBuffer)
	c.close()
	if lost := c.tally.lost.Load(); lost != 0 {
		t.Errorf("after our own close, %d connections are lost, want none", lost)
	}
}
