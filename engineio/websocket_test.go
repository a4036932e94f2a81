package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// coder/websocket, an implementation with nothing in common with ours, is the judge of frames in both directions.
func TestWebSocketPeer(t *testing.T) {
	ts := serve(t, Options{}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, ts.http.URL+"/engine.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(2e6)
	if _, open, err := conn.Read(ctx); err != nil || open[0] != '0' {
		t.Fatalf("open packet %q, %v", open, err)
	}
	for _, size := range []int{0, 1, 124, 125, 126, 127, 4094, 4095, 4096, 65534, 65535, 65536, 100_000, 999_999} {
		data := []byte("4" + strings.Repeat("ü", size/2) + strings.Repeat("x", size%2))
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			if err := conn.Write(ctx, kind, data); err != nil {
				t.Fatal(err)
			}
			gotKind, got, err := conn.Read(ctx)
			if err != nil || gotKind != kind || !bytes.Equal(got, data) {
				t.Fatalf("echo of %d bytes: kind %v, %d bytes, %v", size, gotKind, len(got), err)
			}
		}
	}
	// In fragments: a Writer of this library makes one for each Write.
	w, err := conn.Writer(ctx, websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"4gr", "\xc3", "\xbc", "\xc3\x9fe"} {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "4grüße" {
		t.Fatalf("echo of fragments: %q, %v", got, err)
	}
	// Ping waits for the pong, which needs a reader.
	pinged := make(chan error, 1)
	go func() { pinged <- conn.Ping(ctx) }()
	go func() { _, _, _ = conn.Read(ctx) }() // It returns when the connection is closed.
	if err := <-pinged; err != nil {
		t.Fatalf("ping: %v", err)
	}
	if err := conn.Close(4321, "bye"); err != nil && !errors.As(err, new(websocket.CloseError)) {
		t.Errorf("close: %v", err)
	}
	eventually(t, "close of the session", func() bool { return ts.session(0).closedFor() == ReasonTransportClose })
}

// RFC 6455: every breach is answered with its close code, and ends this connection.
func TestWebSocketBreach(t *testing.T) {
	cases := []struct {
		name string
		sent string
		code uint16
	}{
		{"unmasked", "\x81\x01x", 1002},
		{"reserved bit", frame(0xC0|opText, "4x"), 1002},
		{"reserved data opcode", frame(0x83, "4x"), 1002},
		{"reserved control opcode", frame(0x8B, ""), 1002},
		{"fragmented ping", frame(opPing, ""), 1002},
		{"long ping", frame(0x80|opPing, strings.Repeat("x", 126)), 1002},
		{"16-bit length not minimal", "\x81\xFE\x00\x7D1234", 1002},
		{"64-bit length not minimal", "\x81\xFF\x00\x00\x00\x00\x00\x00\xFF\xFF1234", 1002},
		{"64-bit length negative", "\x81\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF1234", 1002},
		{"continuation of nothing", frame(0x80, "4x"), 1002},
		{"message inside a message", frame(opText, "4x") + text("4y"), 1002},
		{"text not UTF-8", text("4\xff"), 1007},
		{"fragmented text not UTF-8", frame(opText, "4\xc3") + frame(0x80, "x"), 1007},
		{"too big", "\x81\xFF\x00\x00\x00\x00\x00\x01\x00\x001234", 1009},
		{"too big in fragments", frame(opText, strings.Repeat("x", 9000)) + frame(0, strings.Repeat("x", 9000)), 1009},
		{"too many fragments", frame(opText, "4") + strings.Repeat(frame(0, "x"), 8), 1009},
		{"close code that may not be sent", frame(0x80|opClose, "\x03\xEE"), 1002},
		{"close frame of one byte", frame(0x80|opClose, "\x03"), 1002},
		{"close with a code", frame(0x80|opClose, "\x0F\xA1bye"), 4001},
		{"close without a code", frame(0x80|opClose, ""), 0},
		{"empty packet", text(""), 0},
		{"unknown packet", text("7"), 0},
		{"open packet", text("0{}"), 0},
		{"ping packet", text("2"), 0},
		{"close packet", text("1"), 0},
	}
	ts := serve(t, Options{MaxPayload: 10_000, FragmentsMax: 8}, nil)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := ts.websocket()
			p.t = t
			p.write(c.sent)
			p.wantClose(c.code)
			p.conn.Close()
			eventually(t, "close of the session", func() bool { return ts.session(i).closedFor() != "" })
		})
	}
	eventually(t, "end of all connections", func() bool { return len(ts.all()) == 0 })
}

// A frame may arrive in any pieces, together with others, and with control frames between fragments.
func TestWebSocketPieces(t *testing.T) {
	ts := serve(t, Options{}, nil)
	p := ts.websocket()
	stream := text("4one") + frame(opText, "4t") + frame(0x80|opPing, "here") + frame(0, "w") + frame(0x80, "o") +
		frame(0x80|opBinary, "\x00\xff") + text("4"+strings.Repeat("long", 5000)) + frame(0x80|opPong, "") + text("3") + text("6") + text("4last")
	for i := 0; i < len(stream); i += 7 {
		p.write(stream[i:min(i+7, len(stream))])
	}
	want := []struct {
		op   byte
		data string
	}{
		{opText, "4one"}, {opPong, "here"}, {opText, "4two"}, {opBinary, "\x00\xff"}, {opText, "4" + strings.Repeat("long", 5000)}, {opText, "4last"},
	}
	for _, w := range want {
		if op, data := p.read(); op != w.op || data != w.data {
			t.Fatalf("frame %x %.20q, want %x %.20q", op, data, w.op, w.data)
		}
	}
}

func TestWebSocketMessageTimeout(t *testing.T) {
	ts := serve(t, Options{MessageTimeout: 20 * time.Millisecond}, nil)
	p := ts.websocket()
	p.write(text("4x")[:3])
	eventually(t, "close", func() bool { return ts.session(0).closedFor() == ReasonTransportError })
}

// Fragments that come whole, with control frames between them, make no message last longer.
func TestFragmentsTimeout(t *testing.T) {
	ts := serve(t, Options{MessageTimeout: 50 * time.Millisecond}, nil)
	p := ts.websocket()
	p.write(frame(opText, "4x"))
	closed := func() bool { return ts.session(0).closedFor() != "" }
	eventually(t, "close", func() bool {
		_, err := io.WriteString(p.conn, frame(0, "x")+frame(0x80|opPing, ""))
		return closed() || err != nil
	})
	eventually(t, "close", closed)
	if got := ts.session(0).closedFor(); got != ReasonTransportError {
		t.Errorf("closed for %q", got)
	}
}

// A control frame that came in pieces leaves neither a deadline nor a buffer behind. The pipe, as any connection without a socket, is
// read a byte first, so that there are pieces for certain.
func TestWebSocketControlInPieces(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	go func() { _, _ = io.WriteString(client, frame(0x80|opPing, "x")) }() // What fails is found by the reader.
	c := &Conn{srv: &Server{opts: Options{}.withDefaults()}, state: stateOpen}
	r := newReader(c, wsConn{nc: server}, nil)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if opcode, payload, err := r.next(); opcode != opPing || string(payload) != "x" || err != nil || !r.timed {
		t.Fatalf("next() = %x, %q, %v; timed %v", opcode, payload, err, r.timed)
	}
	if _, _, err := r.next(); err != errIdle || r.timed || r.input != nil {
		t.Errorf("then next() = %v, want errIdle; timed %v, input %v", err, r.timed, r.input != nil)
	}
}

// Over TLS there is no non-blocking way to the socket: every write is a goroutine's.
func TestWebSocketOverTLS(t *testing.T) {
	ts := serve(t, Options{}, nil)
	secure := httptest.NewTLSServer(ts.Server)
	defer secure.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, secure.URL+"/engine.io/?EIO=4&transport=websocket", &websocket.DialOptions{HTTPClient: secure.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	if _, open, err := conn.Read(ctx); err != nil || open[0] != '0' {
		t.Fatalf("open packet %q, %v", open, err)
	}
	for i, size := range []int{1, 100, 10_000, 500_000} {
		data := "4" + strings.Repeat(string(rune('a'+i)), size)
		for range 3 {
			if err := conn.Write(ctx, websocket.MessageText, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if _, got, err := conn.Read(ctx); err != nil || string(got) != data {
				t.Fatalf("echo of %d bytes: %d bytes, %v", size, len(got), err)
			}
		}
	}
}

func TestSubprotocol(t *testing.T) {
	for offered, want := range map[string]string{"": "", "chat": "chat", "chat, other": "chat", " a.b!#$ ,c": "a.b!#$", "no token": "", "x\ty": "", "a/b": ""} {
		if got := subprotocol(http.Header{"Sec-Websocket-Protocol": {offered}}); got != want {
			t.Errorf("of %q: %q, want %q", offered, got, want)
		}
	}
}

func TestWebSocketBadHandshake(t *testing.T) {
	ts := serve(t, Options{}, nil)
	good := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for i, value := range map[int]string{5: "8", 7: "short"} {
		header := append([]string(nil), good...)
		header[i] = value
		if status, body, _ := ts.request("GET", "EIO=4&transport=websocket", "", header...); status != 400 {
			t.Errorf("%s %q: %d %q, want 400", header[i-1], value, status, body)
		}
	}
}

// A piecesConn gives what it holds in pieces of the given size, and then ends.
type piecesConn struct {
	net.Conn
	data  []byte
	piece int
}

func (c *piecesConn) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.piece)], c.data)
	c.data = c.data[n:]
	return n, nil
}

// readAll returns what a reader makes of data that comes in pieces, each message or control frame as its opcode and payload, and the error that
// it ends with. It tests the bounds of memory on the way.
func readAll(t *testing.T, srv *Server, data []byte, piece int) (messages []string, err error) {
	t.Helper()
	c := &Conn{srv: srv, state: stateClosing} // Closing, so that no deadline is set on the connection that has none.
	r := newReader(c, wsConn{nc: &piecesConn{data: data, piece: piece}}, nil)
	for {
		opcode, payload, err := r.next()
		if r.input != nil && (len(r.buf) > max(len(r.room), 2*len(data)) || cap(r.message) > max(64, 2*len(data))) {
			t.Fatalf("%d and %d bytes of memory for %d of data", len(r.buf), cap(r.message), len(data))
		}
		if err == errIdle {
			if err := r.wait(); err != nil {
				return messages, err
			}
			continue
		}
		if err != nil {
			return messages, err
		}
		if len(payload) > srv.opts.MaxPayload || opcode&0x8 != 0 && len(payload) > 125 || opcode == opText && !utf8.Valid(payload) {
			t.Fatalf("opcode %x with %d bytes", opcode, len(payload))
		}
		messages = append(messages, string(rune(opcode))+string(payload))
	}
}

// FuzzReader feeds arbitrary bytes to the frame reader: however they are cut into pieces it makes the same of them, and keeps to the limits. And
// it gives back what a client frames and cuts into fragments, with control frames between them.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		text("4x"), frame(opText, "4t") + frame(0x80|opPing, "p") + frame(0x80, "o"), "\x81\xFF\x00\x00\x00\x00\x00\x01\x00\x001234",
		frame(0x80|opClose, "\x03\xE8bye"), text(strings.Repeat("x", 300)) + text("4y"), frame(opBinary, "") + strings.Repeat(frame(0, "x"), 5),
	} {
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(100))
	}
	srv := &Server{opts: Options{MaxPayload: 1000, FragmentsMax: 4}.withDefaults()}
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		whole, wholeErr := readAll(t, srv, data, len(data)+1)
		pieces, piecesErr := readAll(t, srv, data, int(cut)+1)
		if !slices.Equal(whole, pieces) || wholeErr != piecesErr {
			t.Fatalf("in one piece: %q, %v; in pieces of %d: %q, %v", whole, wholeErr, int(cut)+1, pieces, piecesErr)
		}
		if len(data) > 1000 {
			return
		}
		at := min(int(cut), len(data))
		sent := frame(opBinary, string(data[:at])) + frame(0x80|opPing, string(data[:min(at, 125)])) + frame(0x80, string(data[at:]))
		got, err := readAll(t, srv, []byte(sent), int(cut)+1)
		want := []string{string(rune(opPing)) + string(data[:min(at, 125)]), string(rune(opBinary)) + string(data)}
		if !slices.Equal(got, want) || err != io.EOF {
			t.Fatalf("framed: %q, %v, want %q", got, err, want)
		}
	})
}
