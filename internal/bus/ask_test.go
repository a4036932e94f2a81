package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// beatForTests is short, for tests that wait for silence or gone nodes; others must not depend on how busy the machine is.
const beatForTests = 50 * time.Millisecond

// pair opens two nodes of a cluster.
func pair(t *testing.T, every time.Duration) (a, b *Bus) {
	t.Helper()
	a = open(t, Options{NoEcho: true, ClusterListen: "127.0.0.1:0", beatEvery: every})
	b = open(t, Options{NoEcho: true, ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{a.server.ClusterAddr().String()}, beatEvery: every})
	eventually(t, "a route", func() bool { return a.Routes() == 1 && b.Routes() == 1 })
	return a, b
}

// answer has b answer, and waits until a knows of it.
func answer(t *testing.T, a, b *Bus, f func(ctx context.Context, head []byte, body io.Reader) []byte) {
	t.Helper()
	_, err := b.Answer("parley.node.b", func(ctx context.Context, head []byte, body io.Reader) []byte {
		if string(head) == "there?" {
			return []byte("yes")
		}
		return f(ctx, head, body)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer", func() bool {
		got, err := a.Ask(t.Context(), "parley.node.b", []byte("there?"), nil)
		return err == nil && string(got) == "yes"
	})
}

func (b *Bus) underWay() (asked, answered, bytes int) {
	b.exchanges.mu.Lock()
	defer b.exchanges.mu.Unlock()
	return len(b.exchanges.asked), len(b.exchanges.answered), b.exchanges.bytes
}

// nothingLeft holds both nodes to having forgotten all exchanges, and their bytes.
func nothingLeft(t *testing.T, nodes ...*Bus) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "nothing under way", func() bool {
			asked, answered, bytes := n.underWay()
			return asked == 0 && answered == 0 && bytes == 0
		})
	}
}

func echo(_ context.Context, head []byte, body io.Reader) []byte {
	b, err := io.ReadAll(body)
	if err != nil {
		return []byte("error: " + err.Error())
	}
	return slices.Concat(head, b)
}

// patterned is data of which no two pieces are alike.
func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestAskOverNodes(t *testing.T) {
	a, b := pair(t, 0)
	answer(t, a, b, echo)
	for _, size := range []int{0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 5*pieceBytes + 7} {
		body := patterned(size)
		got, err := a.Ask(t.Context(), "parley.node.b", []byte("head"), bytes.NewReader(body))
		if err != nil || !bytes.Equal(got, append([]byte("head"), body...)) {
			t.Errorf("a body of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
	// Bodies of unusual readers, and one that fails.
	for name, c := range map[string]struct {
		body io.Reader
		want string
	}{
		"none":        {nil, "h"},
		"byte wise":   {iotest.OneByteReader(strings.NewReader("abc")), "habc"},
		"end at once": {iotest.DataErrReader(strings.NewReader("abc")), "habc"},
		"broken":      {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(io.ErrUnexpectedEOF)), "error: unexpected EOF"},
	} {
		if got, err := a.Ask(t.Context(), "parley.node.b", []byte("h"), c.body); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	nothingLeft(t, a, b)
}

// An outside NATS takes no message of more than a mebibyte, unless it is told to.
func TestAskThroughOutsideNATS(t *testing.T) {
	port := freePort(t)
	outside := startOutside(t, port)
	defer outside.WaitForShutdown()
	defer outside.Shutdown()
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	a, b := open(t, Options{URL: url}), open(t, Options{URL: url})
	answer(t, a, b, echo)
	body := patterned(3 << 20)
	if got, err := a.Ask(t.Context(), "parley.node.b", nil, bytes.NewReader(body)); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	nothingLeft(t, a, b)
}

func TestAskManyAtATime(t *testing.T) {
	a, b := pair(t, 0)
	answer(t, a, b, echo)
	var asking sync.WaitGroup
	for i := range 500 {
		asking.Go(func() {
			want := fmt.Sprintf("%d-%s", i, strings.Repeat("x", i*100))
			got, err := a.Ask(t.Context(), "parley.node.b", fmt.Appendf(nil, "%d-", i), strings.NewReader(strings.Repeat("x", i*100)))
			if err != nil || string(got) != want {
				t.Errorf("question %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	asking.Wait()
	nothingLeft(t, a, b)
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestAskWithoutReadingTheBody(t *testing.T) {
	a, b := pair(t, 0)
	answer(t, a, b, func(context.Context, []byte, io.Reader) []byte { return []byte("no") })
	if got, err := a.Ask(t.Context(), "parley.node.b", nil, unread{t}); err != nil || string(got) != "no" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Ask(t.Context(), "parley.node.nobody", nil, unread{t}); !errors.Is(err, ErrNobody) {
		t.Errorf("of nobody: %v, want ErrNobody", err)
	}
	nothingLeft(t, a, b)
}

func TestAskRefuses(t *testing.T) {
	a := open(t, Options{})
	began := time.Now()
	if _, err := a.Ask(t.Context(), "parley.node.nobody", nil, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("of nobody: %v, want ErrNobody", err)
	}
	if took := time.Since(began); took > beatEvery {
		t.Errorf("of nobody: took %v, want at once", took)
	}
	for _, subject := range []string{"", "parley.node.*", "parley.>", "a b", "a..b"} {
		if _, err := a.Ask(t.Context(), subject, nil, nil); !errors.Is(err, ErrSubject) {
			t.Errorf("Ask(%q): %v, want ErrSubject", subject, err)
		}
	}
	if _, err := a.Ask(t.Context(), "s", make([]byte, pieceBytes+1), nil); !errors.Is(err, ErrPayload) {
		t.Errorf("too large a head: %v, want ErrPayload", err)
	}
	a.Close()
	if _, err := a.Ask(t.Context(), "s", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if _, err := a.Answer("s", echo); !errors.Is(err, ErrClosed) {
		t.Errorf("Answer after Close: %v, want ErrClosed", err)
	}
	away := open(t, Options{URL: fmt.Sprintf("nats://127.0.0.1:%d", freePort(t))})
	if _, err := away.Ask(t.Context(), "s", nil, nil); !errors.Is(err, ErrLost) {
		t.Errorf("without a server: %v, want ErrLost", err)
	}
}

// TestExchangesAreBounded fills the bounds by hand: the number at the asker, at the answerer, and the bytes.
func TestExchangesAreBounded(t *testing.T) {
	a, b := pair(t, 0)
	answer(t, a, b, echo)
	fill := func(x *exchanges, n int) func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for i := range n {
			name := fmt.Sprint("filled ", i)
			x.asked[name] = &asked{heard: time.Now().Add(time.Hour), settled: make(chan struct{})}
			x.answered[name] = &answered{heard: time.Now().Add(time.Hour), cancel: func() {}}
		}
		return func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			for i := range n {
				delete(x.asked, fmt.Sprint("filled ", i))
				delete(x.answered, fmt.Sprint("filled ", i))
			}
		}
	}
	for _, full := range []*Bus{a, b} {
		empty := fill(&full.exchanges, exchangesMax)
		if _, err := a.Ask(t.Context(), "parley.node.b", nil, nil); !errors.Is(err, ErrBusy) {
			t.Errorf("with a full node: %v, want ErrBusy", err)
		}
		empty()
	}
	big := strings.NewReader(strings.Repeat("x", pieceBytes))
	a.exchanges.mu.Lock()
	a.exchanges.bytes = arrivedBytesMax - pieceBytes/2
	a.exchanges.mu.Unlock()
	if _, err := a.Ask(t.Context(), "parley.node.b", nil, big); !errors.Is(err, ErrBusy) {
		t.Errorf("without room for the answer: %v, want ErrBusy", err)
	}
	a.exchanges.mu.Lock()
	a.exchanges.bytes -= arrivedBytesMax - pieceBytes/2
	a.exchanges.mu.Unlock()
	nothingLeft(t, a, b)
}

func TestCancelReachesTheAnswerer(t *testing.T) {
	a, b := pair(t, beatForTests)
	began, ended := make(chan struct{}), make(chan error, 1)
	answer(t, a, b, func(ctx context.Context, _ []byte, body io.Reader) []byte {
		close(began)
		<-ctx.Done()
		_, err := io.ReadAll(body)
		ended <- err
		return []byte("too late")
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if got, err := a.Ask(ctx, "parley.node.b", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v, want that it was cancelled", got, err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the body of a cancelled question: %v", err)
	}
	nothingLeft(t, a, b)
}

// A question that waits much longer than beats may be absent is answered all the same.
func TestPatientQuestion(t *testing.T) {
	a, b := pair(t, beatForTests)
	answer(t, a, b, func(ctx context.Context, _ []byte, _ io.Reader) []byte {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(3 * silentBeats * beatForTests):
			return []byte("at last")
		}
	})
	if got, err := a.Ask(t.Context(), "parley.node.b", nil, nil); err != nil || string(got) != "at last" {
		t.Errorf("%q, %v", got, err)
	}
	nothingLeft(t, a, b)
}

func TestAnswererGoes(t *testing.T) {
	a, b := pair(t, beatForTests)
	began := make(chan struct{})
	answer(t, a, b, func(ctx context.Context, _ []byte, _ io.Reader) []byte {
		close(began)
		<-ctx.Done()
		return []byte("closing")
	})
	go func() {
		<-began
		b.Close()
	}()
	if got, err := a.Ask(t.Context(), "parley.node.b", nil, nil); !errors.Is(err, ErrLost) {
		t.Errorf("%q, %v, want ErrLost", got, err)
	}
	eventually(t, "it is known to be gone", func() bool {
		_, err := a.Ask(t.Context(), "parley.node.b", nil, nil)
		return errors.Is(err, ErrNobody)
	})
	nothingLeft(t, a)
}

// Somebody who hears questions and never says a word.
func TestSilentAnswerer(t *testing.T) {
	a, b := pair(t, beatForTests)
	h := hear(t, b, "parley.node.b")
	reaches(t, a, h, "parley.node.b")
	began := time.Now()
	if _, err := a.Ask(t.Context(), "parley.node.b", nil, nil); !errors.Is(err, ErrLost) {
		t.Errorf("%v, want ErrLost", err)
	}
	if took := time.Since(began); took < silentBeats*beatForTests {
		t.Errorf("given up after %v, want %v at least", took, silentBeats*beatForTests)
	}
	nothingLeft(t, a)
}

// An asker that vanishes without a word, and messages that are no part of an exchange.
func TestSilentAsker(t *testing.T) {
	a, b := pair(t, beatForTests)
	ended := make(chan struct{})
	answer(t, a, b, func(ctx context.Context, _ []byte, _ io.Reader) []byte {
		<-ctx.Done()
		close(ended)
		return nil
	})
	for _, m := range []string{"", "q", "bxxxx", "zxxxxdata", "pxxxxdata", "lxxxx", "cxxxx", "q\x00\x00\x00\x00"} {
		tell(t, a, "parley.node.b", m)
		if err := a.conn.PublishRequest("parley.node.b", "_INBOX.stranger", []byte(m[:min(len(m), 1)])); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.publish("parley.node.b", "_INBOX.vanished", question, 0, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("not given up in 10 s")
	}
	nothingLeft(t, a, b)
}

// TestLostPieces leaves out a piece of the body, and of an answer.
func TestLostPieces(t *testing.T) {
	a, b := pair(t, beatForTests)
	bodies := make(chan string, 1)
	answer(t, a, b, func(ctx context.Context, head []byte, body io.Reader) []byte {
		got, err := io.ReadAll(body)
		bodies <- fmt.Sprintf("%s, %v", got, err)
		return nil
	})
	for _, m := range []struct {
		k      kind
		number uint32
	}{{question, 0}, {piece, 0}, {last, 2}} {
		if err := a.publish("parley.node.b", "_INBOX.holed", m.k, m.number, []byte{byte(m.k)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-bodies; got != "p, unexpected EOF" {
		t.Errorf("a body with a hole: %q", got)
	}

	h := hear(t, b, "parley.node.holed")
	reaches(t, a, h, "parley.node.holed")
	answered := make(chan error, 1)
	go func() {
		_, err := a.Ask(t.Context(), "parley.node.holed", nil, nil)
		answered <- err
	}()
	eventually(t, "the question", func() bool { n, _, _ := a.underWay(); return n == 1 })
	a.exchanges.mu.Lock()
	var reply string
	for reply = range a.exchanges.asked {
	}
	a.exchanges.mu.Unlock()
	if err := b.publish(reply, "", piece, 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(reply, "", last, 2, []byte("z")); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; !errors.Is(err, ErrLost) {
		t.Errorf("an answer with a hole: %v, want ErrLost", err)
	}
	nothingLeft(t, a, b)
}

func TestCloseEndsQuestions(t *testing.T) {
	a, b := pair(t, beatForTests)
	began := make(chan struct{})
	answer(t, a, b, func(ctx context.Context, _ []byte, _ io.Reader) []byte {
		close(began)
		<-ctx.Done()
		return nil
	})
	go func() {
		<-began
		a.Close()
	}()
	if _, err := a.Ask(t.Context(), "parley.node.b", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	nothingLeft(t, b)
}

func BenchmarkAsk(b *testing.B) {
	one, err := Open(b.Context(), Options{ClusterListen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	defer one.Close()
	two, err := Open(b.Context(), Options{ClusterListen: "127.0.0.1:0", ClusterRoutes: []string{one.server.ClusterAddr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	defer two.Close()
	if _, err := two.Answer("s", func(_ context.Context, head []byte, body io.Reader) []byte {
		if len(head) > 0 {
			_, _ = io.ReadAll(body)
		}
		return make([]byte, 200)
	}); err != nil {
		b.Fatal(err)
	}
	for one.Routes() == 0 || errors.Is(first(one.Ask(b.Context(), "s", nil, nil)), ErrNobody) {
		runtime.Gosched()
	}
	for name, head := range map[string][]byte{"poll": nil, "post": []byte("x")} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := one.Ask(b.Context(), "s", head, strings.NewReader("body")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func first(_ []byte, err error) error { return err }
