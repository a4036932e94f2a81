package bus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o Options) *Bus {
	t.Helper()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(b.Close)
	return b
}

// heard collects the messages of a subscription.
type heard chan Message

func hear(t *testing.T, b *Bus, subject string) heard {
	t.Helper()
	h := make(heard, 10_000)
	if _, err := b.Hear(subject, func(m Message) { h <- m }); err != nil {
		t.Fatalf("Hear(%q): %v", subject, err)
	}
	return h
}

func (h heard) next(t *testing.T) Message {
	t.Helper()
	select {
	case m := <-h:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("nothing heard in 10 s")
		return Message{}
	}
}

func tell(t *testing.T, b *Bus, subject, data string) {
	t.Helper()
	if err := b.Tell(subject, []byte(data)); err != nil {
		t.Fatalf("Tell(%q): %v", subject, err)
	}
}

// eventually waits for a condition that something else brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 15 s: %s", what)
		}
	}
}

// reaches tells pings from one bus until the other hears one: interest spreads between nodes with a delay.
func reaches(t *testing.T, from *Bus, to heard, subject string) {
	t.Helper()
	eventually(t, "a message from one node reaches the other", func() bool {
		tell(t, from, subject, "ping")
		select {
		case <-to:
			return true
		default:
			return false
		}
	})
}

func TestHearsWhatIsTold(t *testing.T) {
	b := open(t, Options{})
	one, any, rest := hear(t, b, "parley.log.7"), hear(t, b, "parley.log.*"), hear(t, b, "chat.>")

	tell(t, b, "parley.log.8", "other")
	tell(t, b, "parley.log.7", "mine")
	tell(t, b, "chat.message.new", "{}")

	if m := one.next(t); m.Subject != "parley.log.7" || string(m.Data) != "mine" {
		t.Errorf("heard %s %q, want parley.log.7 \"mine\"", m.Subject, m.Data)
	}
	if m := any.next(t); string(m.Data) != "other" {
		t.Errorf("wildcard heard %q first, want \"other\"", m.Data)
	}
	if m := rest.next(t); m.Subject != "chat.message.new" {
		t.Errorf("heard %s, want chat.message.new", m.Subject)
	}
	if !b.Healthy() || b.Routes() != 0 {
		t.Errorf("Healthy, Routes = %v, %d, want true, 0", b.Healthy(), b.Routes())
	}
}

func TestOpensNoPort(t *testing.T) {
	b := open(t, Options{})
	if a := b.server.Addr(); a != nil {
		t.Errorf("client port open at %v", a)
	}
	if a := b.server.ClusterAddr(); a != nil {
		t.Errorf("route port open at %v", a)
	}
	node := open(t, Options{ClusterListen: "127.0.0.1:0"})
	if a := node.server.Addr(); a != nil {
		t.Errorf("cluster node: client port open at %v", a)
	}
}

func TestOrderAndOneAtATime(t *testing.T) {
	b := open(t, Options{})
	const n = 20_000
	var mu sync.Mutex
	got := make([]string, 0, n)
	done := make(chan struct{})
	_, err := b.Hear("s", func(m Message) {
		if !mu.TryLock() {
			t.Error("two calls of a handler at a time")
			return
		}
		defer mu.Unlock()
		if got = append(got, string(m.Data)); len(got) == n {
			close(done)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		tell(t, b, "s", fmt.Sprint(i))
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("heard not all of %d in 20 s: %+v", n, b.Stats())
	}
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, s)
		}
	}
}

func TestNoEcho(t *testing.T) {
	b := open(t, Options{NoEcho: true, ClusterListen: "127.0.0.1:0"})
	other := open(t, Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{b.server.ClusterAddr().String()}})
	own, others := hear(t, b, "s"), hear(t, other, "s")
	reaches(t, b, others, "s")
	reaches(t, other, own, "s")
	for len(own) > 0 {
		if m := <-own; string(m.Data) == "mine" {
			t.Error("heard what it told itself")
		}
	}
	tell(t, b, "s", "mine")
	for string(others.next(t).Data) != "mine" {
	}
	tell(t, other, "s", "end")
	for m := own.next(t); string(m.Data) != "end"; m = own.next(t) {
		if string(m.Data) == "mine" {
			t.Error("heard what it told itself")
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	b := open(t, Options{})
	calls := make(chan struct{}, 10)
	var sub *Subscription
	ready := make(chan struct{})
	sub, err := b.Hear("s", func(Message) {
		<-ready
		sub.Unsubscribe() // From its own handler, and twice.
		sub.Unsubscribe()
		calls <- struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	all := hear(t, b, ">")
	for range 3 {
		tell(t, b, "s", "")
	}
	for range 3 {
		all.next(t)
	}
	<-calls
	b.Close() // Waits for handlers.
	if n := len(calls); n != 0 {
		t.Errorf("handler called %d more times after Unsubscribe", n)
	}
}

func TestSlowSubscriberDropsAndIsCounted(t *testing.T) {
	for _, bytesMax := range []int{pendingBytesMax, PayloadBytesMax} {
		t.Run(fmt.Sprint(bytesMax>>20, " MiB"), func(t *testing.T) { slowSubscriber(t, bytesMax) })
	}
}

func slowSubscriber(t *testing.T, bytesMax int) {
	b := open(t, Options{})
	hold, started := make(chan struct{}), make(chan struct{}, 1)
	var once sync.Once
	sub, err := b.HearWithin(pendingMessagesMax, bytesMax, "s", func(Message) {
		once.Do(func() { close(started) })
		<-hold
	})
	if err != nil {
		t.Fatal(err)
	}
	fast := hear(t, b, "fast")
	payload := bytes.Repeat([]byte("x"), 1<<20)
	told := bytesMax>>20 + 8
	for range told {
		eventually(t, "room in the queue", func() bool { return b.Tell("s", payload) == nil })
	}
	tell(t, b, "fast", "through")
	fast.next(t) // A slow subscription does not hold up another.
	<-started
	dropped := sub.Dropped()
	if dropped == 0 || dropped >= uint64(told) {
		t.Errorf("Dropped() = %d of %d, want some", dropped, told)
	}
	if s := b.Stats(); s.Dropped != dropped {
		t.Errorf("Stats().Dropped = %d, want %d", s.Dropped, dropped)
	}
	sub.Unsubscribe()
	if s := b.Stats(); s.Dropped != dropped {
		t.Errorf("Stats().Dropped after Unsubscribe = %d, want %d", s.Dropped, dropped)
	}
	close(hold)
}

func TestTellRefuses(t *testing.T) {
	b := open(t, Options{})
	for _, subject := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\r\nPUB b 0", "a\x00"} {
		if err := b.Tell(subject, nil); !errors.Is(err, ErrSubject) {
			t.Errorf("Tell(%q) = %v, want ErrSubject", subject, err)
		}
	}
	if err := b.Tell("s", make([]byte, PayloadBytesMax+1)); !errors.Is(err, ErrPayload) {
		t.Errorf("Tell of too much = %v, want ErrPayload", err)
	}
	big := hear(t, b, "s")
	if err := b.Tell("s", make([]byte, PayloadBytesMax)); err != nil {
		t.Errorf("Tell of the maximum = %v", err)
	}
	big.next(t)
	if _, err := b.Hear("a b", func(Message) {}); err == nil {
		t.Error("Hear of a subject with a space succeeded")
	}
	b.Close()
	b.Close()
	if err := b.Tell("s", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Tell after Close = %v, want ErrClosed", err)
	}
	if _, err := b.Hear("s", func(Message) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Hear after Close = %v, want ErrClosed", err)
	}
	if s := b.Stats(); s.Lost != 12 {
		t.Errorf("Stats().Lost = %d, want the 12 that were refused", s.Lost)
	}
}

func TestCloseWritesWhatWasTold(t *testing.T) {
	a := open(t, Options{ClusterListen: "127.0.0.1:0"})
	b := open(t, Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{a.server.ClusterAddr().String()}})
	h := hear(t, b, "s")
	reaches(t, a, h, "s")
	for i := range 1_000 {
		tell(t, a, "s", fmt.Sprint(i))
	}
	a.Close()
	for string(h.next(t).Data) != "999" { // next fails the test if it does not come.
	}
}

func TestClusterNodeDiesAndComesBack(t *testing.T) {
	const secret = "nats://node:route-password@"
	a := open(t, Options{ClusterListen: secret + "127.0.0.1:0"})
	address := a.server.ClusterAddr().String()
	startB := func() *Bus {
		return open(t, Options{ClusterListen: secret + "127.0.0.1:0", ClusterRoutes: []string{secret + address}})
	}
	b := startB()
	atA, atB := hear(t, a, "parley.log.*"), hear(t, b, "parley.log.*")
	reaches(t, a, atB, "parley.log.1")
	reaches(t, b, atA, "parley.log.2")
	if a.Routes() != 1 || b.Routes() != 1 {
		t.Errorf("Routes = %d, %d, want 1, 1", a.Routes(), b.Routes())
	}

	b.Close()
	eventually(t, "the dead node's route goes", func() bool { return a.Routes() == 0 })
	if !a.Healthy() {
		t.Error("the remaining node is not healthy")
	}
	own := hear(t, a, "own")
	tell(t, a, "own", "still here")
	own.next(t)

	again := make(chan struct{}, 100)
	a.OnReconnect(func() { again <- struct{}{} })
	b = startB()
	atB = hear(t, b, "parley.log.*")
	select {
	case <-again:
	case <-time.After(15 * time.Second):
		t.Fatal("OnReconnect not called in 15 s after the node came back")
	}
	reaches(t, a, atB, "parley.log.1")
}

func TestClusterRefusesStranger(t *testing.T) {
	a := open(t, Options{ClusterListen: "nats://node:route-password@127.0.0.1:0"})
	var log lockedBuffer
	stranger := open(t, Options{
		ClusterListen: "127.0.0.1:0",
		ClusterRoutes: []string{"nats://node:wrong@" + a.server.ClusterAddr().String()},
		Log:           slog.New(slog.NewTextHandler(&log, nil)),
	})
	eventually(t, "the stranger is told that it is refused", func() bool { return strings.Contains(log.String(), "Authorization") })
	if n := stranger.Routes(); n != 0 {
		t.Errorf("Routes of the stranger = %d", n)
	}
	if strings.Contains(log.String(), "wrong") {
		t.Errorf("the password is in the log: %s", log.String())
	}
}

func TestOutsideNATSGoesAndComes(t *testing.T) {
	port := freePort(t)
	b := open(t, Options{URL: fmt.Sprintf("nats://127.0.0.1:%d", port)}) // Down at the start.
	if b.Healthy() {
		t.Error("healthy without a server")
	}
	again := make(chan struct{}, 100)
	b.OnReconnect(func() { again <- struct{}{} })
	h := hear(t, b, "s")

	for range 2 {
		lost := b.Stats().Lost
		began := time.Now()
		for range 1_000 {
			tell(t, b, "s", "into the void")
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("1,000 Tells without a server took %v", took)
		}
		eventually(t, "what was told without a server is counted lost", func() bool { return b.Stats().Lost == lost+1_000 })

		outside := startOutside(t, port)
		select {
		case <-again:
		case <-time.After(15 * time.Second):
			t.Fatal("OnReconnect not called in 15 s")
		}
		if !b.Healthy() {
			t.Error("not healthy after reconnecting")
		}
		tell(t, b, "s", "heard") // The subscription was renewed by itself.
		if m := h.next(t); string(m.Data) != "heard" {
			t.Errorf("heard %q, want \"heard\"", m.Data)
		}
		outside.Shutdown()
		outside.WaitForShutdown()
		eventually(t, "the loss is noticed", func() bool { return !b.Healthy() })
	}
}

// A server that accepts a connection and then reads nothing must not hold up whoever tells.
func TestStalledServerDoesNotBlockTell(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stalled := make(chan struct{})
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				fmt.Fprintf(c, "INFO {\"server_id\":\"x\",\"version\":\"2.10.0\",\"proto\":1,\"headers\":true,\"max_payload\":4194304}\r\n")
				buf := make([]byte, 4096)
				for range 2 { // CONNECT and PING, in one or two reads; then nothing more.
					if _, err := c.Read(buf); err != nil || bytes.Contains(buf, []byte("PING")) {
						break
					}
				}
				fmt.Fprint(c, "PONG\r\n")
				<-stalled
			})
		}
	})
	t.Cleanup(func() { l.Close(); close(stalled); served.Wait() })

	b := open(t, Options{URL: l.Addr().String()})
	eventually(t, "connected", b.Healthy)
	payload := make([]byte, 1<<20)
	began := time.Now()
	var full int
	for range 100 {
		if errors.Is(b.Tell("s", payload), ErrFull) {
			full++
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("100 Tells to a stalled server took %v", took)
	}
	if full == 0 {
		t.Error("100 MiB fitted in a queue of 32 MiB")
	}
}

func TestOpenErrors(t *testing.T) {
	taken := open(t, Options{ClusterListen: "127.0.0.1:0"}).server.ClusterAddr().String()
	for name, o := range map[string]Options{
		"outside and cluster":    {URL: "nats://127.0.0.1:4222", ClusterListen: "127.0.0.1:0"},
		"routes without address": {ClusterRoutes: []string{"127.0.0.1:6222"}},
		"address without port":   {ClusterListen: "127.0.0.1"},
		"route without port":     {ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{"nats://n:hush@127.0.0.1"}},
		"route of another kind":  {ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{"http://n:hush@127.0.0.1:1"}},
		"unreadable URL":         {URL: "nats://n:hush@%zz:1"},
		"port taken":             {ClusterListen: taken},
	} {
		b, err := Open(t.Context(), o)
		if err == nil {
			b.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

func startOutside(t *testing.T, port int) *server.Server {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("outside NATS not ready in 10 s")
	}
	return srv
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func BenchmarkTellHear(b *testing.B) {
	bus, err := Open(b.Context(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer bus.Close()
	arrived := make(chan struct{}, 1<<16)
	if _, err := bus.Hear("s", func(Message) { arrived <- struct{}{} }); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 256)
	waiting := 0
	for b.Loop() {
		if bus.Tell("s", data) == nil {
			waiting++
		}
		for waiting > 1_000 {
			<-arrived
			waiting--
		}
	}
}
