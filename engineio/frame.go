package engineio

import (
	"encoding/base64"
	"encoding/binary"
)

// A Frame is one encoded packet, ready to be written to any number of connections. It is immutable.
//
// It holds the bytes of an unmasked WebSocket frame; the form for polling is derived from them, so that a broadcast is encoded once.
type Frame struct {
	wire     []byte // RFC 6455 section 5.2: header and payload
	headerAt uint8  // length of the header: 2, 4 or 10
	binary   bool
	volatile bool   // see Volatile
	key      string // see Droppable
}

// WebSocket opcodes, RFC 6455 section 11.8.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Types of Engine.IO packets (protocol 4, "Protocol").
const (
	packetOpen    = '0'
	packetClose   = '1'
	packetPing    = '2'
	packetPong    = '3'
	packetMessage = '4'
	packetUpgrade = '5'
	packetNoop    = '6'

	// In a polling payload a binary message is 'b' and its base64.
	packetBinary = 'b'
)

// pong is the packet that answers a ping.
const pong = string(packetPong)

// The frames that are the same for every connection.
var (
	pingFrame = packetFrame("2")
	wsClose   = &Frame{wire: []byte{0x80 | opClose, 0}, headerAt: 2}
)

// TextFrame returns the frame of a text message of exactly sizeBytes, which fill appends to the slice it is given.
// The text must be UTF-8. It panics if fill appends another number of bytes, which is an error of the caller.
func TextFrame(sizeBytes int, fill func([]byte) []byte) Frame {
	f := newFrame(opText, sizeBytes+1)
	f.wire = append(f.wire, packetMessage)
	f.wire = fill(f.wire)
	if len(f.wire) != int(f.headerAt)+1+sizeBytes {
		panic("engineio: TextFrame was filled with another number of bytes than announced")
	}
	return f
}

// BinaryFrame returns the frame of a binary message, with a copy of data.
func BinaryFrame(data []byte) Frame {
	f := newFrame(opBinary, len(data))
	f.wire = append(f.wire, data...)
	f.binary = true
	return f
}

// Droppable returns f as a frame that may be dropped while a connection is slow to take what it is sent: an earlier frame with the
// same key as soon as a newer one is queued, and every such frame before the connection would be closed for its full queue.
func (f Frame) Droppable(key string) Frame {
	f.key = key
	return f
}

// Volatile returns f as a frame that goes only to a connection that is ready for it: over polling one whose poll waits, over WebSocket one
// whose socket takes what it is sent. To any other it is not sent, then or later.
func (f Frame) Volatile() Frame {
	f.volatile = true
	return f
}

// Data returns the message that f carries. It must not be changed.
func (f *Frame) Data() []byte {
	data := f.wire[f.headerAt:]
	if !f.binary {
		data = data[1:]
	}
	return data
}

// Size returns the bytes that f takes in the queue of a connection.
func (f *Frame) Size() int { return len(f.wire) }

// newFrame returns a frame whose wire holds the header and has room for the payload.
func newFrame(opcode byte, payload int) Frame {
	switch {
	case payload <= 125:
		w := make([]byte, 2, 2+payload)
		w[0], w[1] = 0x80|opcode, byte(payload)
		return Frame{wire: w, headerAt: 2}
	case payload <= 0xFFFF:
		w := make([]byte, 4, 4+payload)
		w[0], w[1] = 0x80|opcode, 126
		binary.BigEndian.PutUint16(w[2:], uint16(payload))
		return Frame{wire: w, headerAt: 4}
	default:
		w := make([]byte, 10, 10+payload)
		w[0], w[1] = 0x80|opcode, 127
		binary.BigEndian.PutUint64(w[2:], uint64(payload))
		return Frame{wire: w, headerAt: 10}
	}
}

// packetFrame returns the frame of a whole text packet.
func packetFrame(packet string) *Frame {
	f := newFrame(opText, len(packet))
	f.wire = append(f.wire, packet...)
	return &f
}

// controlFrame returns a WebSocket control frame, whose payload is at most 125 bytes.
func controlFrame(opcode byte, payload []byte) *Frame {
	f := newFrame(opcode, len(payload))
	f.wire = append(f.wire, payload...)
	return &f
}

// payloadSize returns the length of f in a polling payload.
func (f *Frame) payloadSize() int {
	n := len(f.wire) - int(f.headerAt)
	if f.binary {
		return 1 + base64.StdEncoding.EncodedLen(n)
	}
	return n
}

// appendPayload appends the polling form of f to b.
func (f *Frame) appendPayload(b []byte) []byte {
	data := f.wire[f.headerAt:]
	if f.binary {
		return base64.StdEncoding.AppendEncode(append(b, packetBinary), data)
	}
	return append(b, data...)
}
