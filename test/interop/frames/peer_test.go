package frames

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"parley/engineio"
)

// connect opens a WebSocket of coder/websocket, which ends with the test.
func connect(t *testing.T, s *server, mode websocket.CompressionMode) (context.Context, *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, s.URL+"/engine.io/?EIO=4&transport=websocket", &websocket.DialOptions{CompressionMode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() }) // What was to be seen of its end has been seen.
	conn.SetReadLimit(2 * maxPayload)
	if _, open, err := conn.Read(ctx); err != nil || !bytes.HasPrefix(open, []byte("0{")) {
		t.Fatalf("open packet %q, %v", open, err)
	}
	return ctx, conn
}

// A library that would compress must do without, whatever it offers, and cuts messages where it likes.
func TestCoderPeer(t *testing.T) {
	s := serve(t, engineio.Options{})
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover} {
		ctx, conn := connect(t, s, mode)
		for _, parts := range []int{1, 2, 1000} {
			for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
				data := []byte("4" + strings.Repeat(letters, 5000))
				w, err := conn.Writer(ctx, kind)
				if err != nil {
					t.Fatal(err)
				}
				for i := range parts {
					if _, err := w.Write(data[len(data)*i/parts : len(data)*(i+1)/parts]); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if got, echo, err := conn.Read(ctx); err != nil || got != kind || !bytes.Equal(echo, data) {
					t.Fatalf("mode %v, %d parts: echo of kind %v with %d bytes, %v", mode, parts, got, len(echo), err)
				}
			}
		}
	}
}

// Pings, pongs and messages cross each other.
func TestCoderPeerPingsWhileItSends(t *testing.T) {
	s := serve(t, engineio.Options{})
	ctx, conn := connect(t, s, websocket.CompressionDisabled)
	const messages, pings = 500, 20
	done := make(chan error, 2)
	go func() {
		for i := range messages {
			if err := conn.Write(ctx, websocket.MessageText, fmt.Append(nil, "4", i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() {
		for range pings {
			if err := conn.Ping(ctx); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range messages {
		if _, got, err := conn.Read(ctx); err != nil || string(got) != fmt.Sprint("4", i) {
			t.Fatalf("message %d: %q, %v", i, got, err)
		}
	}
	// The pongs that are left need a reader; it ends with the connection.
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _, _ = conn.Read(ctx) // As said.
	}()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	_ = conn.CloseNow() // The reader is to end.
	<-read
}

func TestCoderPeerCloses(t *testing.T) {
	s := serve(t, engineio.Options{})
	for _, code := range []websocket.StatusCode{websocket.StatusNormalClosure, websocket.StatusGoingAway, 3210, 4999} {
		_, conn := connect(t, s, websocket.CompressionDisabled)
		// Close waits for the answer, and is only content with the same code.
		if err := conn.Close(code, "bye"); err != nil {
			t.Errorf("Close(%d) = %v", code, err)
		}
		s.wantEnd(t, engineio.ReasonTransportClose)
	}
}

// The library says what the server closed it for.
func TestCoderPeerIsTooBig(t *testing.T) {
	s := serve(t, engineio.Options{})
	ctx, conn := connect(t, s, websocket.CompressionDisabled)
	if err := conn.Write(ctx, websocket.MessageBinary, make([]byte, maxPayload+1)); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.Read(ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusMessageTooBig {
		t.Errorf("Read: %v, want a close with %d", err, websocket.StatusMessageTooBig)
	}
}
