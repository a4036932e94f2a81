package frames

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"parley/engineio"
)

// letters takes one to four bytes each, so that fragments are cut inside of them.
const letters = "xü€\U0001F600"

func TestLengthsAndFragments(t *testing.T) {
	s := serve(t, engineio.Options{})
	text := "4" + strings.Repeat(letters, maxPayload/len(letters))
	p, _ := s.dial(t)
	for _, size := range []int{0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, maxPayload - 1, maxPayload} {
		for _, n := range []int{1, 2, 3, 127, 1024} {
			data := text[1 : 1+min(size, len(text)-1)]
			p.write(fragments(opBinary, data, n, ""))
			p.want(opBinary, data)
			// As text it is to be whole letters, and the packet's type is one of its bytes.
			whole := strings.ToValidUTF8(text[:max(size, 1)], "")
			p.write(fragments(opText, whole, n, ""))
			p.want(opText, whole)
		}
	}
}

// RFC 6455 section 5.4: control frames may stand between the fragments of a message, and are answered before it is whole.
func TestControlFramesBetweenFragments(t *testing.T) {
	s := serve(t, engineio.Options{})
	p, _ := s.dial(t)
	for _, size := range []int{0, 1, 125} {
		beat := strings.Repeat("\x00\xff", size)[:size]
		p.write(fragments(opText, "4in pieces", 5, frame(fin|opPing, beat)+frame(fin|opPong, beat)))
		for range 4 {
			p.want(opPong, beat)
		}
		p.want(opText, "4in pieces")
	}
}

func TestSegments(t *testing.T) {
	s := serve(t, engineio.Options{})
	p, _ := s.dial(t)
	var all strings.Builder
	for i := range 1000 {
		all.WriteString(frame(fin|opText, fmt.Sprint("4", i)))
	}
	p.write(all.String())
	for i := range 1000 {
		p.want(opText, fmt.Sprint("4", i))
	}
	stream := fragments(opText, "4"+letters, 3, frame(fin|opPing, "between")) + frame(fin|opBinary, strings.Repeat("b", 300))
	for i := range len(stream) {
		p.write(stream[i : i+1])
	}
	p.want(opPong, "between")
	p.want(opPong, "between")
	p.want(opText, "4"+letters)
	p.want(opBinary, strings.Repeat("b", 300))
}

func TestMasks(t *testing.T) {
	s := serve(t, engineio.Options{})
	p, _ := s.dial(t)
	for _, mask := range [][4]byte{{}, {0xFF, 0xFF, 0xFF, 0xFF}, {1, 2, 3, 4}, {0, 0, 0, 0x80}, {0x34, 0x34, 0x34, 0x34}} {
		for size := range 20 { // Every rest of a division by the words in which a server may unmask.
			data := strings.Repeat("4abcdefg", 3)[:size]
			p.write(masked(fin|opBinary, data, mask))
			p.want(opBinary, data)
		}
	}
}

func TestBreaches(t *testing.T) {
	type breach struct {
		name, sent string
		code       uint16
	}
	var breaches []breach
	add := func(code uint16, sent, name string, args ...any) {
		breaches = append(breaches, breach{fmt.Sprintf(name, args...), sent, code})
	}
	for _, op := range []byte{opContinuation, opText, opBinary, opClose, opPing, opPong} {
		for rsv := byte(0x10); rsv <= 0x70; rsv += 0x10 {
			add(1002, frame(fin|rsv|op, "4"), "reserved bits %x of opcode %x", rsv, op)
		}
		add(1002, string([]byte{fin | op, 1})+"4", "no mask with opcode %x", op)
		add(1002, string([]byte{fin | op, 0}), "no mask and no data with opcode %x", op)
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF} {
		add(1002, frame(fin|op, ""), "opcode %x", op)
		add(1002, frame(op, "4"), "opcode %x, more to come", op)
	}
	for _, op := range []byte{opClose, opPing, opPong} {
		add(1002, frame(op, ""), "fragment of control opcode %x", op)
		add(1002, frame(fin|op, strings.Repeat("x", 126)), "126 bytes with control opcode %x", op)
		add(1002, frame(fin|op, strings.Repeat("x", 65_536)), "65,536 bytes with control opcode %x", op)
	}
	// RFC 6455 section 5.2: the shortest encoding, and no sign.
	for _, n := range []uint16{0, 1, 125} {
		add(1002, string(binary.BigEndian.AppendUint16([]byte{fin | opText, 0xFE}, n))+"mask", "%d in 16 bits", n)
	}
	for _, n := range []uint64{0, 1, 125, 126, 65_535, 1 << 63, 1<<64 - 1} {
		add(1002, string(binary.BigEndian.AppendUint64([]byte{fin | opBinary, 0xFF}, n))+"mask", "%d in 64 bits", n)
	}
	for _, n := range []uint64{maxPayload + 1, 1 << 30, 1<<31 - 1, 1 << 31, 1 << 40, 1<<63 - 1} {
		add(1009, string(binary.BigEndian.AppendUint64([]byte{fin | opBinary, 0xFF}, n))+"mask", "%d bytes announced", n)
	}
	add(1009, frame(opBinary, strings.Repeat("x", maxPayload))+frame(fin, "x"), "too much by the second fragment")
	add(1009, fragments(opBinary, "", 1025, ""), "1,025 fragments")
	add(1002, frame(fin, "4"), "continuation of nothing")
	add(1002, frame(0, "4"), "continuation of nothing, more to come")
	for _, op := range []byte{opText, opBinary} {
		add(1002, frame(opText, "4")+frame(fin|op, "4"), "opcode %x within a text", op)
		add(1002, frame(opBinary, "x")+frame(op, "4"), "fragment of opcode %x within binary data", op)
	}
	// What is no UTF-8 by RFC 3629: too long, halves of pairs, beyond the last letter, parts of letters.
	for _, bad := range []string{"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\x80", "\xFF", "ü\xC3", "\xE2\x82", "\xF0\x9F\x98"} {
		add(1007, frame(fin|opText, "4"+bad), "text %x", bad)
		add(1007, fragments(opText, "4"+bad, 1+len(bad), ""), "text %x, byte by byte", bad)
	}
	s := serve(t, engineio.Options{})
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			p, _ := s.dial(t)
			// What follows is not looked at. Where it is in the way of the breach it is a part of it.
			p.write(frame(fin|opText, "4before") + b.sent + frame(fin|opText, "4after"))
			p.want(opText, "4before")
			p.wantClose(b.code)
			s.wantEnd(t, engineio.ReasonTransportError)
		})
	}
}

func TestTextAtTheEdgesOfUTF8(t *testing.T) {
	s := serve(t, engineio.Options{})
	p, _ := s.dial(t)
	for _, text := range []string{"\x00", "\x7F", "\u0080", "\u07FF", "\u0800", "\uD7FF", "\uE000", "\uFEFF", "\uFFFE", "\uFFFF", "\U00010000", "\U0010FFFF"} {
		for n := 1; n <= 1+len(text); n++ {
			p.write(fragments(opText, "4"+text, n, ""))
			p.want(opText, "4"+text)
		}
	}
}

// RFC 6455 sections 5.5.1 and 7.4: a Close frame is answered with its own code where that is one that may be sent.
func TestCloseCodes(t *testing.T) {
	s := serve(t, engineio.Options{})
	check := func(name, body string, answer uint16) {
		t.Run(name, func(t *testing.T) {
			p, _ := s.dial(t)
			p.write(frame(fin|opClose, body) + frame(fin|opText, "4after") + frame(fin|opPing, "after"))
			p.wantClose(answer)
			s.wantEnd(t, engineio.ReasonTransportClose)
		})
	}
	with := func(code uint16, reason string) string {
		return string(binary.BigEndian.AppendUint16(nil, code)) + reason
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		check(fmt.Sprint(code), with(code, "bye"), code)
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535} {
		check(fmt.Sprint("reserved ", code), with(code, ""), 1002)
	}
	check("nothing", "", 0)
	check("half a code", "\x03", 1002)
	check("reason that is no UTF-8", with(1000, "\xff"), 1007)
	check("longest reason", with(1000, strings.Repeat("x", 123)), 1000)
}

// A client may not draw a message out for ever, even if each fragment is quick.
func TestSlowFragments(t *testing.T) {
	s := serve(t, engineio.Options{MessageTimeout: 200 * time.Millisecond, FragmentsMax: 1 << 30})
	p, _ := s.dial(t)
	p.write(frame(opText, "4"))
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	late := time.After(wait)
	for written := 0; ; written++ {
		select {
		case reason := <-s.ends:
			if reason != engineio.ReasonTransportError || written < 3 {
				t.Errorf("the session ended with %q after %d fragments", reason, written)
			}
			return
		case <-pace.C:
			_, _ = io.WriteString(p.conn, frame(0, "x")) // At some time the server has closed it.
		case <-late:
			t.Fatalf("the session goes on after %d fragments in %v", written, wait)
		}
	}
}

func TestClientThatStopsToSend(t *testing.T) {
	for name, sent := range map[string]string{"between messages": "", "in a frame": frame(fin|opText, "4x")[:4], "in a message": frame(opText, "4x")} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, engineio.Options{})
			p, _ := s.dial(t)
			p.write(sent)
			if err := p.conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			s.wantEnd(t, engineio.ReasonTransportClose)
			if first, payload, err := p.next(); err != io.EOF {
				t.Errorf("frame %x %q, %v, want the end", first, payload, err)
			}
		})
	}
}

func TestExtensionsAreNotAccepted(t *testing.T) {
	s := serve(t, engineio.Options{})
	p, answer := s.dial(t, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame")
	if strings.Contains(strings.ToLower(answer), "sec-websocket-extensions") {
		t.Errorf("answer %q accepts an extension", answer)
	}
	p.write(frame(fin|opText, "4plain"))
	p.want(opText, "4plain")
	p.write(frame(fin|0x40|opText, "4plain")) // The bit of a compressed message.
	p.wantClose(1002)
}
