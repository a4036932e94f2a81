//go:build !unix

package engineio

import (
	"errors"
	"net"
	"syscall"
)

// Without the calls of a Unix every connection is read and written by the blocking methods of net.Conn.

func rawConn(net.Conn) syscall.RawConn { return nil }

type rawWriter struct{}

func (*rawWriter) init() {}

func (*rawWriter) write(syscall.RawConn, []byte) (int, error) {
	return 0, errors.ErrUnsupported
}

func (*reader) tryRead(uintptr) bool { return true }
