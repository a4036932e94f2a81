package socketio

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// clientsEnv makes the test binary a process of clients, "address count", so that their time and memory are not the server's.
const clientsEnv = "SOCKETIO_BENCH_CLIENTS"

func TestMain(m *testing.M) {
	if spec := os.Getenv(clientsEnv); spec != "" {
		address, count, _ := strings.Cut(spec, " ")
		n, _ := strconv.Atoi(count)
		if err := runClients(address, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// runClients opens n connections, joins the main namespace on each, and reads them until standard input ends.
func runClients(address string, n int) error {
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		// The CONNECT packet "40" with a mask of zeros follows the request at once.
		_, err = io.WriteString(conn, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\x00\x00\x00\x0040")
		if err != nil {
			return err
		}
		r := bufio.NewReaderSize(conn, 512)
		for joined := false; !joined; {
			line, err := r.ReadBytes('}') // The open packet ends with one, and so does the answer to CONNECT.
			if err != nil {
				return err
			}
			joined = bytes.Contains(line, []byte(`40{"sid"`))
		}
		go func() {
			buf := make([]byte, 16<<10)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if string(buf[:n]) == "\x81\x012" {
					_, _ = io.WriteString(conn, "\x81\x81\x00\x00\x00\x003") // If it fails the next read does.
				}
			}
		}()
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// withClients serves n clients of another process, whose sockets it returns.
func withClients(b *testing.B, opts Options, n int) (*Server, []*Socket) {
	b.Helper()
	s := NewServer(opts)
	connected := make(chan *Socket, n)
	s.Of("/").OnAuth(func(*Handshake) error { signIn(32); return nil })
	s.Of("/").OnConnect(func(s *Socket) { connected <- s })
	web := httptest.NewUnstartedServer(s)
	web.Config.ErrorLog = nil
	web.Start()
	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", clientsEnv, web.Listener.Addr(), n))
	clients.Stderr = os.Stderr
	stdin, err := clients.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close() // It ends the clients.
		if err := clients.Wait(); err != nil {
			b.Error(err)
		}
		if err := s.Shutdown(b.Context()); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
		web.Close()
	})
	sockets := make([]*Socket, 0, n)
	deadline := time.After(time.Minute)
	for len(sockets) < n {
		select {
		case socket := <-connected:
			sockets = append(sockets, socket)
		case <-deadline:
			b.Fatalf("%d of %d clients connected", len(sockets), n)
		}
	}
	return s, sockets
}

// signIn uses 256 bytes of stack for each level, as much in all as what looks a user up does.
func signIn(levels int) byte {
	var frame [256]byte
	if levels > 0 {
		frame[levels%256] = signIn(levels - 1)
	}
	return frame[levels%128]
}

// cpu returns the time that this process has spent.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkBroadcast sends events of about 250 bytes to rooms over loopback, each encoded anew, as fast as they go. An operation is one event.
// depth is how many events wait for each socket: with 1 every delivery is a system call of its own, with 32 a busy server's are many.
func BenchmarkBroadcast(b *testing.B) {
	const clients = 1000
	for _, size := range []int{10, 100, 1000} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("room=%d/depth=%d", size, depth), func(b *testing.B) { broadcast(b, clients, size, depth) })
		}
	}
}

func broadcast(b *testing.B, clients, size, depth int) {
	s, sockets := withClients(b, Options{}, clients)
	for i, socket := range sockets {
		socket.Join(fmt.Sprint(i / size))
	}
	names := make([]string, clients/size)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	message := []byte(`{"id":"0198c0de-1234-7abc-8def-0123456789ab","seq":123456,"content":"` + strings.Repeat("hello ", 20) + `"}`)
	ns := s.Of("/")
	before := s.Stats()
	begun := cpu(b)
	inFlight := 0
	b.ResetTimer()
	for i := range b.N {
		ns.To(names[i%len(names)]).Send(NewRawPacket("/", "new-message", message))
		if inFlight += size; inFlight >= depth*clients {
			inFlight = 0
			waitUntilWritten(s, before.PacketsOut+int64((i+1)*size-depth/2*clients))
		}
	}
	waitUntilWritten(s, before.PacketsOut+int64(b.N*size))
	b.StopTimer()
	spent := cpu(b) - begun
	b.ReportMetric(float64(b.N*size)/spent.Seconds(), "deliveries/cpu-s")
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "deliveries/s")
	if n := s.Stats(); n.SlowCloses > 0 || n.WebSockets != int64(clients) {
		b.Errorf("clients were lost: %+v", n)
	}
}

func waitUntilWritten(s *Server, packets int64) {
	for s.Stats().PacketsOut < packets {
		<-time.After(20 * time.Microsecond) // Not by yielding: that would be counted as the server's work.
	}
}

// BenchmarkIdle measures the resident memory of 5,000 connections that have joined a namespace; run it with -benchtime=1x.
func BenchmarkIdle(b *testing.B) {
	const clients = 5000
	for range b.N {
		debug.FreeOSMemory()
		before := resident(b)
		s, sockets := withClients(b, Options{}, clients)
		settled := func() float64 { return float64(resident(b)-before) / float64(len(sockets)) }
		runtime.GC()
		b.ReportMetric(settled(), "B/conn")
		debug.FreeOSMemory()
		b.ReportMetric(settled(), "B/conn-trimmed")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/float64(clients), "heap-B/conn")
		b.ReportMetric(float64(m.StackInuse)/float64(clients), "stack-B/conn")
		if n := s.Stats().WebSockets; n != clients {
			b.Errorf("%d connections are left", n)
		}
	}
}

// resident returns the resident memory of this process in bytes.
func resident(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err) // It needs /proc.
	}
	pages, err := strconv.ParseInt(strings.Fields(string(status))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// BenchmarkEvent parses an event of a client and calls its handler.
func BenchmarkEvent(b *testing.B) {
	s := NewServer(Options{})
	b.Cleanup(func() { _ = s.Shutdown(b.Context()) }) // There are no connections.
	ns := s.Of("/")
	ns.OnEvent(func(*Socket, *Event) {})
	c := &client{srv: s, joined: true}
	c.sockets = []*Socket{{ns: ns, client: c, id: "x"}}
	packet := []byte(`217["send-message",{"conversation_id":"0198c0de-1234-7abc-8def-0123456789ab","client_message_id":"1","content":"` + strings.Repeat("hello ", 20) + `"}]`)
	b.ReportAllocs()
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		if err := c.packet(packet); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReceive has a client send events, one write for each, to a handler that uses some stack.
func BenchmarkReceive(b *testing.B) {
	s := NewServer(Options{})
	web := httptest.NewServer(s)
	defer web.Close()
	defer func() { _ = s.Shutdown(b.Context()) }() // The client is gone by then.
	handled := make(chan struct{}, 1)
	n := 0
	s.Of("/").OnEvent(func(*Socket, *Event) {
		signIn(16)
		if n++; n == b.N {
			handled <- struct{}{}
		}
	})
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	const zeroMask = "\x00\x00\x00\x00"
	packet := `42["send-message",{"content":"` + strings.Repeat("hello ", 10) + `"}]`
	frame := append([]byte{0x81, 0x80 | byte(len(packet))}, zeroMask+packet...)
	_, err = io.WriteString(conn, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82"+zeroMask+"40")
	if err != nil {
		b.Fatal(err)
	}
	begun := cpu(b)
	b.ResetTimer()
	for range b.N {
		if _, err := conn.Write(frame); err != nil {
			b.Fatal(err)
		}
	}
	<-handled
	b.StopTimer()
	b.ReportMetric(float64(b.N)/(cpu(b)-begun).Seconds(), "events/cpu-s")
}
