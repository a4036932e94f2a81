package engineio

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Close codes, RFC 6455 section 7.4.1.
const (
	closeProtocolError  = 1002
	closeInvalidPayload = 1007
	closeMessageTooBig  = 1009
)

// An input is what a connection holds while there is data for it, and only then.
type input struct {
	buf        []byte // room, or something larger
	start, end int    // of what has been read and not been taken
	need       int    // bytes from start on without which it makes no sense to look again

	message   []byte // fragments so far
	fragments int
	opcode    byte // of the message that is being assembled; 0 if there is none

	room [4 << 10]byte
}

var inputPool = sync.Pool{New: func() any { return new(input) }}

func newInput() *input {
	in := inputPool.Get().(*input)
	in.buf = in.room[:]
	return in
}

// free gives the input back, without what it held.
func (in *input) free() {
	in.buf, in.start, in.end, in.need = nil, 0, 0, 0
	in.message, in.fragments, in.opcode = nil, 0, 0
	inputPool.Put(in)
}

// past is a deadline that has been exceeded.
var past = time.Unix(1, 0)

// A wsError is a breach of RFC 6455, to be answered with a close code.
type wsError struct {
	code uint16
	text string
}

func (e *wsError) Error() string { return "engineio: websocket: " + e.text }

var (
	errReserved    = &wsError{closeProtocolError, "reserved bit or opcode"}
	errUnmasked    = &wsError{closeProtocolError, "frame is not masked"}
	errControl     = &wsError{closeProtocolError, "control frame is fragmented or too long"}
	errLength      = &wsError{closeProtocolError, "length is not minimal or too large"}
	errFragment    = &wsError{closeProtocolError, "fragment out of order"}
	errFragments   = &wsError{closeMessageTooBig, "too many fragments"}
	errTooBig      = &wsError{closeMessageTooBig, "message is too big"}
	errInvalidUTF8 = &wsError{closeInvalidPayload, "text is not UTF-8"}
)

// isWebSocketUpgrade reports whether r asks for a WebSocket.
func isWebSocketUpgrade(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

func hasToken(h http.Header, name, token string) bool {
	for _, value := range h[name] {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// acceptWebSocket takes the connection of r over (RFC 6455 section 4.2) and returns it with what the client has sent already. The
// response, which it returns as bytes, is still to be written, behind it further headers and the empty line that ends them. It answers a request that is no proper handshake itself.
func acceptWebSocket(w http.ResponseWriter, r *http.Request) (ws wsConn, early, response []byte, ok bool) {
	key := r.Header.Get("Sec-Websocket-Key")
	if nonce, err := base64.StdEncoding.DecodeString(key); r.Method != http.MethodGet || err != nil || len(nonce) != 16 {
		refuse(w, r, badRequest)
		return ws, nil, nil, false
	}
	if r.Header.Get("Sec-Websocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		refuse(w, r, badRequest)
		return ws, nil, nil, false
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, r, badRequest)
		return ws, nil, nil, false
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early = make([]byte, n)
		_, _ = rw.Reader.Read(early) // It has these n bytes.
	}
	_ = nc.SetDeadline(time.Time{}) // If it fails the handshake does.
	boundUnsent(nc)
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	response = append(response, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	response = base64.StdEncoding.AppendEncode(response, sum[:])
	response = append(response, "\r\n"...)
	if protocol := subprotocol(r.Header); protocol != "" {
		response = append(append(append(response, "Sec-WebSocket-Protocol: "...), protocol...), "\r\n"...)
	}
	return wsConn{nc, rawConn(nc)}, early, response, true
}

// subprotocol returns the first that the client offers, as the official server answers: it means nothing here, and a client that offered one
// gives up without an answer (RFC 6455 section 4.2.2). It is empty if none was offered, or what was is no token.
func subprotocol(h http.Header) string {
	first, _, _ := strings.Cut(h.Get("Sec-Websocket-Protocol"), ",")
	first = strings.TrimSpace(first)
	for _, c := range []byte(first) {
		if c <= ' ' || c >= 0x7F || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 { // RFC 9110 section 5.6.2
			return ""
		}
	}
	return first
}

// write writes b whole, waiting for at most timeout. It is for what is written before the connection has a queue.
func (ws wsConn) write(b []byte, timeout time.Duration) error {
	if err := ws.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := ws.nc.Write(b); err != nil {
		return err
	}
	return ws.nc.SetWriteDeadline(time.Time{})
}

// A reader takes messages from a WebSocket. It belongs to one goroutine.
type reader struct {
	c  *Conn
	ws wsConn

	try func(fd uintptr) bool // tryRead, bound once
	err error                 // of tryRead

	timed  bool // a read deadline is set
	ponged bool // the last packet was a pong

	renewals uint8  // of the goroutine, up to earlyRenewals
	renewed  uint32 // Server.second of the last one

	*input // nil while the connection is idle
}

func newReader(c *Conn, ws wsConn, early []byte) *reader {
	r := &reader{c: c, ws: ws}
	r.try = r.tryRead
	if len(early) > 0 {
		r.input = newInput()
		r.buf, r.end = early, len(early)
	}
	return r
}

// errIdle is the error of next between two messages, with nothing of the second read.
var errIdle = errors.New("engineio: no message has begun")

// next returns the next whole message or control frame; payload is valid until the next call. Errors: errIdle, after which the caller
// waits; *wsError for a breach of the protocol, else that of the connection.
func (r *reader) next() (opcode byte, payload []byte, err error) {
	for {
		if r.input == nil {
			return 0, nil, errIdle
		}
		b := r.buf[r.start:r.end]
		h, ok, err := parseHeader(b)
		if err != nil {
			return 0, nil, err
		}
		if !ok {
			r.need = len(b) + 1
			if err := r.fill(); err != nil {
				return 0, nil, err
			}
			continue
		}
		if !h.isControl() && len(r.message)+h.length > r.c.srv.opts.MaxPayload {
			return 0, nil, errTooBig
		}
		if len(b) < h.size+h.length {
			r.need = h.size + h.length
			if err := r.fill(); err != nil {
				return 0, nil, err
			}
			continue
		}
		payload = b[h.size : h.size+h.length]
		unmask(payload, h.mask)
		r.start += h.size + h.length
		if h.isControl() {
			return h.opcode, payload, nil
		}
		opcode, payload, err = r.assemble(h, payload)
		if err != nil {
			return 0, nil, err
		}
		if opcode != 0 {
			r.untime()
			return opcode, payload, nil
		}
	}
}

// assemble adds a data frame to the message it belongs to, which it returns if it is complete (RFC 6455 section 5.4).
func (r *reader) assemble(h header, payload []byte) (byte, []byte, error) {
	first := h.opcode != opContinuation
	if first == (r.opcode != 0) {
		return 0, nil, errFragment
	}
	opcode := h.opcode
	if first && h.fin {
		r.message = nil
	} else {
		if first {
			r.opcode, r.fragments, r.message = h.opcode, 0, nil
		}
		if r.fragments++; r.fragments > r.c.srv.opts.FragmentsMax {
			return 0, nil, errFragments
		}
		r.message = append(r.message, payload...)
		if !h.fin {
			return 0, nil, nil
		}
		opcode, payload = r.opcode, r.message
		r.opcode, r.message = 0, nil
	}
	if opcode == opText && !utf8.Valid(payload) {
		return 0, nil, errInvalidUTF8
	}
	return opcode, payload, nil
}

// fill reads more of a message, for at most Options.MessageTimeout in all. Between messages it gives the input back instead.
func (r *reader) fill() error {
	if r.start == r.end && r.opcode == 0 {
		r.untime() // It may have been set for a control frame.
		r.release()
		return errIdle
	}
	if !r.timed {
		r.timed = true
		r.c.setReadDeadline(r.ws, time.Now().Add(r.c.srv.opts.MessageTimeout))
	}
	r.grow()
	n, err := r.ws.nc.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}

// wait blocks until there is something to read, and reads it.
func (r *reader) wait() error {
	if r.input != nil {
		return nil // What came with the handshake.
	}
	if r.ws.raw != nil {
		r.err = nil
		if err := r.ws.raw.Read(r.try); err != nil {
			return err
		}
		return r.err
	}
	one := make([]byte, 1)
	if _, err := r.ws.nc.Read(one); err != nil {
		return err
	}
	r.input = newInput()
	r.end = copy(r.buf, one)
	return nil
}

// grow makes room behind what has been read: for all of the frame if that is little more, else by doubling, so that memory is
// given for bytes that came and not for a length that was claimed.
func (r *reader) grow() {
	have := r.buf[r.start:r.end]
	switch {
	case r.start+r.need <= len(r.buf):
		return
	case r.need <= len(r.buf):
		copy(r.buf, have)
	default:
		larger := make([]byte, min(r.need, max(2*len(have), len(r.room))))
		copy(larger, have)
		r.buf = larger
	}
	r.start, r.end = 0, len(have)
}

// release gives the input back.
func (r *reader) release() {
	if r.input != nil {
		r.input.free()
		r.input = nil
	}
}

// untime lifts the deadline of a message that is complete.
func (r *reader) untime() {
	if r.timed {
		r.timed = false
		r.c.setReadDeadline(r.ws, time.Time{})
	}
}

// setReadDeadline sets the deadline of a reader, unless the connection is ending and has set its own.
func (c *Conn) setReadDeadline(ws wsConn, t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state <= stateOpen {
		_ = ws.nc.SetReadDeadline(t) // A failure shows in the read.
	}
}

// A header is that of a WebSocket frame (RFC 6455 section 5.2).
type header struct {
	fin    bool
	opcode byte
	size   int // of the header itself
	length int // of the payload
	mask   [4]byte
}

func (h header) isControl() bool { return h.opcode&0x8 != 0 }

// parseHeader reads the header at the start of b; ok is false if b is too short for it. What can be refused is refused at the first byte.
func parseHeader(b []byte) (h header, ok bool, err error) {
	if len(b) < 2 {
		return h, false, nil
	}
	h.fin, h.opcode = b[0]&0x80 != 0, b[0]&0x0F
	if b[0]&0x70 != 0 || h.opcode > opBinary && h.opcode < opClose || h.opcode > opPong {
		return h, false, errReserved
	}
	if b[1]&0x80 == 0 {
		return h, false, errUnmasked
	}
	h.length, h.size = int(b[1]&0x7F), 2
	if h.isControl() && (!h.fin || h.length > 125) {
		return h, false, errControl
	}
	switch h.length {
	case 126:
		if len(b) < 4 {
			return h, false, nil
		}
		h.length, h.size = int(binary.BigEndian.Uint16(b[2:])), 4
		if h.length <= 125 {
			return h, false, errLength
		}
	case 127:
		if len(b) < 10 {
			return h, false, nil
		}
		length := binary.BigEndian.Uint64(b[2:])
		if length <= 0xFFFF || length >= 1<<63 {
			return h, false, errLength
		}
		if length > 1<<31-1 {
			return h, false, errTooBig
		}
		h.length, h.size = int(length), 10
	}
	if len(b) < h.size+4 {
		return h, false, nil
	}
	h.mask = [4]byte(b[h.size:])
	h.size += 4
	return h, true, nil
}

// unmask undoes the masking of b in place (RFC 6455 section 5.3).
func unmask(b []byte, mask [4]byte) {
	m := uint64(binary.LittleEndian.Uint32(mask[:]))
	m |= m << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^m)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
}

// earlyRenewals is how many times a reader is renewed before it is held to once a second: a client does most in its first messages, those
// that sign it in, and then may be silent for long.
const earlyRenewals = 8

// read is the goroutine of a WebSocket connection. It waits with as little on its stack as can be, and from time to time goes on in a new
// goroutine: a stack of 2 KB that has grown in a handler never becomes as small again, and most connections wait nearly all of their time.
func (r *reader) read() {
	defer r.c.srv.conns.Done()
	for {
		if err := r.wait(); err != nil {
			r.failed(err)
			break
		}
		if !r.handle() {
			break
		}
		if r.isStale() {
			r.c.srv.conns.Add(1)
			go r.read()
			return
		}
	}
	r.c.finish()
	r.linger()
}

// isStale reports whether the goroutine is to be renewed, which costs about as much as a system call: after a pong, since most connections
// do nothing but to answer pings; after each of the first messages; then at most once a second.
func (r *reader) isStale() bool {
	second := r.c.srv.second.Load()
	if !r.ponged && r.renewals == earlyRenewals && second == r.renewed {
		return false
	}
	r.ponged, r.renewed = false, second
	r.renewals = min(r.renewals+1, earlyRenewals)
	return true
}

// handle handles what has been read, and what it takes to end it on the border of a message. It reports whether to go on.
func (r *reader) handle() bool {
	c := r.c
	for {
		opcode, payload, err := r.next()
		switch {
		case err == errIdle:
			return true
		case err != nil:
			r.failed(err)
			return false
		case opcode == opText || opcode == opBinary:
			r.ponged = opcode == opText && string(payload) == pong
			if !c.receive(payload, opcode == opBinary) {
				return false
			}
		case opcode == opPing:
			if c.Send(controlFrame(opPong, payload)) != nil {
				return false
			}
		case opcode == opClose:
			r.closed(payload)
			return false
		}
	}
}

// failed ends the connection after next returned err.
func (r *reader) failed(err error) {
	var breach *wsError
	if errors.As(err, &breach) {
		r.c.shard.counts.parseErrors.Add(1)
		r.c.close(ReasonTransportError, closeFrame(breach.code, breach.text))
		return
	}
	if r.c.isOpen() {
		reason := ReasonTransportClose
		if r.timed && errors.Is(err, os.ErrDeadlineExceeded) {
			reason = ReasonTransportError
		}
		r.c.abort(reason)
	}
}

// closed answers the client's Close frame (RFC 6455 section 5.5.1), with its own code or, if that may not be sent, a protocol error; a reason
// must be UTF-8.
func (r *reader) closed(payload []byte) {
	answer := wsClose
	if len(payload) > 0 {
		answer = closeFrame(closeProtocolError, "")
		if len(payload) >= 2 {
			if code := binary.BigEndian.Uint16(payload); mayBeSent(code) {
				answer = closeFrame(code, "")
			}
			if !utf8.Valid(payload[2:]) {
				answer = closeFrame(closeInvalidPayload, "")
			}
		}
	}
	r.c.close(ReasonTransportClose, answer)
}

// mayBeSent reports whether a Close frame may carry the code (RFC 6455 section 7.4).
func mayBeSent(code uint16) bool {
	return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006 || code >= 3000 && code <= 4999
}

func closeFrame(code uint16, text string) *Frame {
	return controlFrame(opClose, append(binary.BigEndian.AppendUint16(nil, code), text...))
}

// linger reads and forgets until the client has seen the end, so that closing the socket does not take from it what was written last.
func (r *reader) linger() {
	c := r.c
	r.release()
	c.mu.Lock()
	if c.state == stateClosing {
		_ = r.ws.nc.SetReadDeadline(time.Now().Add(c.srv.opts.WriteTimeout)) // A failure shows in the read.
	}
	wait := c.state == stateClosing
	c.mu.Unlock()
	if wait {
		in := newInput()
		for {
			if _, err := r.ws.nc.Read(in.buf); err != nil {
				break
			}
		}
		in.free()
	}
	c.mu.Lock()
	c.state = stateClosed
	c.queue, c.queueBytes = nil, 0
	c.mu.Unlock()
	_ = r.ws.nc.Close() // There is nothing left to lose.
	c.shard.forget(c)
}
