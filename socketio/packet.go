package socketio

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"parley/engineio"
)

// Types of packets (protocol 5, "Packet types").
const (
	packetConnect      = '0'
	packetDisconnect   = '1'
	packetEvent        = '2'
	packetAck          = '3'
	packetConnectError = '4'
	packetBinaryEvent  = '5'
	packetBinaryAck    = '6'
)

// namespaceBytesMax bounds the name of a namespace that a client asks for.
const namespaceBytesMax = 255

// ackIDMax is the largest acknowledgement id, 2^53-1: what a number of JavaScript holds exactly.
const ackIDMax = 1<<53 - 1

// noAck is the acknowledgement id of a packet that has none.
const noAck = -1

// mainNamespace is what a packet is for that names none.
var mainNamespace = []byte("/")

// errMalformed is the error of everything that is no packet.
var errMalformed = errors.New("socketio: malformed packet")

// A received packet is a text packet split into its parts, which are parts of the text.
type received struct {
	kind        byte
	attachments int
	namespace   []byte
	id          int64 // noAck if there is none
	data        []byte
}

// parsePacket splits a text packet (protocol 5, "Packet encoding"):
//
//	<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]
//
// Of the JSON it tests nothing. Errors: errMalformed.
func parsePacket(b []byte, attachmentsMax int) (received, error) {
	p := received{id: noAck, namespace: mainNamespace}
	if len(b) == 0 || b[0] < packetConnect || b[0] > packetBinaryAck {
		return p, errMalformed
	}
	p.kind, b = b[0], b[1:]
	if p.kind == packetBinaryEvent || p.kind == packetBinaryAck {
		n := skipDigits(b, 0)
		if n == 0 || n > 9 || n >= len(b) || b[n] != '-' {
			return p, errMalformed
		}
		p.attachments, _ = strconv.Atoi(string(b[:n])) // Up to nine digits.
		if p.attachments == 0 || p.attachments > attachmentsMax {
			return p, errMalformed
		}
		b = b[n+1:]
	}
	if len(b) > 0 && b[0] == '/' {
		end := bytes.IndexByte(b, ',')
		if end < 0 {
			p.namespace, b = b, nil
		} else {
			p.namespace, b = b[:end], b[end+1:]
		}
		if len(p.namespace) > namespaceBytesMax {
			return p, errMalformed
		}
	}
	if n := skipDigits(b, 0); n > 0 {
		if n > 16 {
			return p, errMalformed
		}
		p.id, _ = strconv.ParseInt(string(b[:n]), 10, 64) // Up to sixteen digits.
		if p.id > ackIDMax {
			return p, errMalformed
		}
		b = b[n:]
	}
	p.data = b
	return p, nil
}

// reserved are the names of events that a client may not send: they mean something else to an official server or client.
func reserved(event string) bool {
	switch event {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

// A placeholder stands in the JSON for an attachment.
type placeholder struct {
	Placeholder bool `json:"_placeholder"`
	Num         *int `json:"num"`
}

// attachmentOf returns the attachment that arg stands for.
func attachmentOf(arg json.RawMessage, attachments [][]byte) (data []byte, ok bool) {
	var p placeholder
	if len(attachments) == 0 || arg[0] != '{' || json.Unmarshal(arg, &p) != nil || !p.Placeholder || p.Num == nil {
		return nil, false
	}
	if *p.Num < 0 || *p.Num >= len(attachments) {
		return nil, false
	}
	return attachments[*p.Num], true
}

// placeholdersValid reports whether every placeholder in the valid JSON names one of n attachments.
func placeholdersValid(data []byte, n int) bool {
	if !bytes.Contains(data, []byte("_placeholder")) && !bytes.ContainsRune(data, '\\') {
		return true
	}
	var value any
	return json.Unmarshal(data, &value) == nil && placeholdersIn(value, n)
}

func placeholdersIn(value any, n int) bool {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			if !placeholdersIn(v, n) {
				return false
			}
		}
	case map[string]any:
		if value["_placeholder"] == true {
			num, ok := value["num"].(float64)
			return ok && num >= 0 && num < float64(n) && num == float64(int(num))
		}
		for _, v := range value {
			if !placeholdersIn(v, n) {
				return false
			}
		}
	}
	return true
}

// A Packet is an encoded event, to be sent to any number of sockets of its namespace. It is immutable.
type Packet struct {
	namespace string
	text      engineio.Frame
	all       []*engineio.Frame // text and attachments; nil if there are none
}

// NewPacket encodes an event for a namespace. Arguments are encoded as JSON, a json.RawMessage as it is; those that are []byte become
// binary attachments. Errors: an argument that JSON cannot hold.
func NewPacket(namespace, event string, args ...any) (*Packet, error) {
	return newPacket(packetEvent, namespace, noAck, event, args)
}

// NewRawPacket is [NewPacket] for arguments that are JSON already. It does not test them.
func NewRawPacket(namespace, event string, jsonArgs ...[]byte) *Packet {
	return &Packet{namespace: namespace, text: encodeArray(packetEvent, 0, namespace, noAck, quote(event), jsonArgs)}
}

// NewBinaryPacket encodes an event with binary data anywhere inside of its arguments, such as an [Event] that is passed on: each
// {"_placeholder":true,"num":n} in an argument, which is JSON already, stands for attachments[n]. Errors: a placeholder that names no attachment.
func NewBinaryPacket(namespace, event string, jsonArgs []json.RawMessage, attachments [][]byte) (*Packet, error) {
	return newBinaryPacket(packetEvent, namespace, noAck, quote(event), jsonArgs, attachments)
}

func newBinaryPacket(kind byte, namespace string, id int64, first []byte, jsonArgs []json.RawMessage, attachments [][]byte) (*Packet, error) {
	encoded := make([][]byte, len(jsonArgs))
	for i, arg := range jsonArgs {
		if len(attachments) > 0 && !placeholdersValid(arg, len(attachments)) {
			return nil, errors.New("socketio: a placeholder names no attachment")
		}
		encoded[i] = arg
	}
	return packetWith(kind, namespace, id, first, encoded, attachments), nil
}

// WithDroppable returns p as one that may be dropped from the queue of a socket that is slow: by a newer one with the same key, or to make
// room for what must not be lost. A packet with attachments is returned as it is.
func (p *Packet) WithDroppable(key string) *Packet {
	if p.all != nil {
		return p
	}
	return &Packet{namespace: p.namespace, text: p.text.Droppable(key)}
}

// WithVolatile returns p as one that is not sent to a socket that is not ready for it at once: a polling client whose poll does not wait, a
// WebSocket client that is slow to take what it is sent.
func (p *Packet) WithVolatile() *Packet {
	v := &Packet{namespace: p.namespace, text: p.text.Volatile()}
	if p.all == nil {
		return v
	}
	v.all = append(v.all, &v.text)
	for _, f := range p.all[1:] {
		attachment := f.Volatile()
		v.all = append(v.all, &attachment)
	}
	return v
}

// Size returns the bytes of p as they are queued for a socket.
func (p *Packet) Size() int {
	if p.all == nil {
		return p.text.Size()
	}
	n := 0
	for _, f := range p.all {
		n += f.Size()
	}
	return n
}

func (p *Packet) sendTo(conn *engineio.Conn) error {
	if p.all == nil {
		return conn.Send(&p.text)
	}
	return conn.SendAll(p.all)
}

// newPacket encodes an event (kind packetEvent) or an acknowledgement (packetAck, event empty).
func newPacket(kind byte, namespace string, id int64, event string, args []any) (*Packet, error) {
	encoded := make([][]byte, 0, 4)
	var attachments [][]byte
	for _, arg := range args {
		b, attached, err := encodeArg(arg, len(attachments))
		if err != nil {
			return nil, err
		}
		if attached != nil {
			attachments = append(attachments, attached)
		}
		encoded = append(encoded, b)
	}
	var first []byte
	if kind == packetEvent {
		first = quote(event)
	}
	return packetWith(kind, namespace, id, first, encoded, attachments), nil
}

// packetWith encodes a packet, which is a binary one if there are attachments.
func packetWith(kind byte, namespace string, id int64, first []byte, args, attachments [][]byte) *Packet {
	if len(attachments) > 0 {
		kind += packetBinaryEvent - packetEvent
	}
	p := &Packet{namespace: namespace, text: encodeArray(kind, len(attachments), namespace, id, first, args)}
	if len(attachments) == 0 {
		return p
	}
	p.all = append(p.all, &p.text)
	for _, data := range attachments {
		f := engineio.BinaryFrame(data)
		p.all = append(p.all, &f)
	}
	return p
}

// encodeArg returns the JSON of arg, and the attachment that it stands for if arg is a []byte; n is how many came before.
func encodeArg(arg any, n int) (encoded, attachment []byte, err error) {
	switch arg := arg.(type) {
	case json.RawMessage:
		return arg, nil, nil
	case []byte:
		if arg == nil {
			arg = []byte{}
		}
		return fmt.Appendf(nil, `{"_placeholder":true,"num":%d}`, n), arg, nil
	}
	// Not json.Marshal, which writes <, > and & in six bytes each for the sake of HTML.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(arg); err != nil {
		return nil, nil, fmt.Errorf("socketio: encoding an argument: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil, nil
}

// encodeArray encodes a packet whose data is an array: first, if it is not nil, and args.
func encodeArray(kind byte, attachments int, namespace string, id int64, first []byte, args [][]byte) engineio.Frame {
	size := 2 + len(first) + max(len(args)-1, 0)
	if first != nil && len(args) > 0 {
		size++
	}
	for _, arg := range args {
		size += len(arg)
	}
	return encode(kind, attachments, namespace, id, size, func(b []byte) []byte {
		b = append(append(b, '['), first...)
		for i, arg := range args {
			if i > 0 || first != nil {
				b = append(b, ',')
			}
			b = append(b, arg...)
		}
		return append(b, ']')
	})
}

// encode encodes a packet with dataSize bytes of data, which fill appends.
func encode(kind byte, attachments int, namespace string, id int64, dataSize int, fill func([]byte) []byte) engineio.Frame {
	var room [64]byte
	head := append(room[:0], kind)
	if attachments > 0 {
		head = append(strconv.AppendInt(head, int64(attachments), 10), '-')
	}
	if namespace != "/" {
		head = append(append(head, namespace...), ',')
	}
	if id != noAck {
		head = strconv.AppendInt(head, id, 10)
	}
	return engineio.TextFrame(len(head)+dataSize, func(b []byte) []byte {
		return fill(append(b, head...))
	})
}

// encodeData encodes a packet with the given data, which may be nil.
func encodeData(kind byte, namespace string, id int64, data []byte) *engineio.Frame {
	f := encode(kind, 0, namespace, id, len(data), func(b []byte) []byte { return append(b, data...) })
	return &f
}

// inline returns args with each placeholder replaced by the base64 of its attachment, which encoding/json decodes to []byte.
func inline(args []json.RawMessage, attachments [][]byte) []json.RawMessage {
	for i, arg := range args {
		if data, ok := attachmentOf(arg, attachments); ok {
			b := base64.StdEncoding.AppendEncode([]byte{'"'}, data)
			args[i] = append(b, '"')
		}
	}
	return args
}
