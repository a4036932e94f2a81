package socketio

import (
	"time"

	"parley/engineio"
)

// Options configures a [Server]. The zero value of a field means its default.
type Options struct {
	// Engine configures the transports. Its Path defaults to "/socket.io/".
	Engine engineio.Options

	// ConnectTimeout is how long a connection may go without having joined a namespace. Default 45 s.
	ConnectTimeout time.Duration
	// NamespacesMax bounds the namespaces that one connection has joined at a time. Default 16.
	NamespacesMax int

	// AttachmentsMax bounds the binary attachments of a packet. Default 10, as in the official parser.
	AttachmentsMax int
	// AttachmentBytesMax bounds their sum in bytes. Default 4 MiB.
	AttachmentBytesMax int
	// AttachmentTimeout is how long the attachments of a packet may take to arrive. Default 10 s.
	AttachmentTimeout time.Duration

	// EventNameBytesMax bounds the name of an event. Default 128.
	EventNameBytesMax int
	// ArgsMax bounds the arguments of an event or acknowledgement. Default 256.
	ArgsMax int

	// FamilyNamespacesMax bounds the namespaces that exist because a client asked for them (see [Server.OfFunc]). Default 1,000.
	FamilyNamespacesMax int
	// ReplyBytesMax bounds the acknowledgements that one [Target.EmitWithAck] collects, in bytes of their arguments. Default 16 MiB.
	ReplyBytesMax int

	// HandshakeHeaders names the request headers that are kept for [Handshake]. Default Authorization, X-Forwarded-For.
	// They stay in memory as long as the connection.
	HandshakeHeaders []string
	// HandshakeHeaderBytesMax bounds their values in bytes; one that would exceed it is left out, with those behind it. Default 16 KiB.
	HandshakeHeaderBytesMax int
}

func (o Options) withDefaults() Options {
	setDefault(&o.Engine.Path, "/socket.io/")
	setDefault(&o.ConnectTimeout, 45*time.Second)
	setDefault(&o.NamespacesMax, 16)
	setDefault(&o.AttachmentsMax, 10)
	setDefault(&o.AttachmentBytesMax, 4<<20)
	setDefault(&o.AttachmentTimeout, 10*time.Second)
	setDefault(&o.EventNameBytesMax, 128)
	setDefault(&o.ArgsMax, 256)
	setDefault(&o.FamilyNamespacesMax, 1000)
	setDefault(&o.ReplyBytesMax, 16<<20)
	setDefault(&o.HandshakeHeaderBytesMax, 16<<10)
	if o.HandshakeHeaders == nil {
		o.HandshakeHeaders = []string{"Authorization", "X-Forwarded-For"}
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
