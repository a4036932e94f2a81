//go:build unix

package engineio

import (
	"io"
	"net"
	"syscall"
)

// rawConn returns the non-blocking access to the socket under nc, or nil if there is none (TLS, a wrapped connection).
func rawConn(nc net.Conn) syscall.RawConn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// A rawWriter writes without waiting. It is used by one goroutine, and exists so that no closure is made for each write.
type rawWriter struct {
	b   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

func (w *rawWriter) init() { w.fn = w.try }

// write writes as much of b as the socket takes now. It is no error if that is less than all.
func (w *rawWriter) write(raw syscall.RawConn, b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := raw.Write(w.fn)
	w.b = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

func (w *rawWriter) try(fd uintptr) bool {
	for w.n < len(w.b) {
		n, err := syscall.Write(int(fd), w.b[w.n:])
		switch err {
		case nil:
			w.n += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			w.err = err
			return true
		}
	}
	return true
}

// tryRead reads into an input of the pool, which it keeps only if there was something to read. done is false if the caller should wait.
func (r *reader) tryRead(fd uintptr) (done bool) {
	in := newInput()
	for {
		n, err := syscall.Read(int(fd), in.buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			in.free()
			return false
		case err != nil:
			r.err = err
		case n == 0:
			r.err = io.EOF
		default:
			r.input = in
			r.end = n
			return true
		}
		in.free()
		return true
	}
}
