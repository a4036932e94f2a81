package engineio

import (
	"net"
	"syscall"
)

// unsentBytesMax bounds what the kernel takes for a socket and cannot send yet.
const unsentBytesMax = 64 << 10

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of <linux/tcp.h>.
const tcpNotSentLowat = 25

// boundUnsent keeps the kernel from taking megabytes for a client that does not read, which would be counted in none of our bounds: it says
// that the socket would block once so much waits to be sent. What is on its way is bounded by the window, as before.
func boundUnsent(nc net.Conn) {
	if under, ok := nc.(interface{ NetConn() net.Conn }); ok { // of TLS
		nc = under.NetConn()
	}
	raw := rawConn(nc)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // If it fails, the bound is the system's.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, unsentBytesMax)
	})
}
