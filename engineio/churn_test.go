package engineio

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clients that come and go in every way, at random and at once, leave nothing behind, and each session hears of its end once.
func TestChurn(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	ts := serve(t, Options{
		PingInterval: 15 * time.Millisecond, PingTimeout: 30 * time.Millisecond, UpgradeTimeout: 20 * time.Millisecond, FirstPollTimeout: 20 * time.Millisecond,
		WriteTimeout: 100 * time.Millisecond, MessageTimeout: 20 * time.Millisecond, QueueBytesMax: 64 << 10, AddressConnsMax: 1000,
	}, func(s *recorder) {
		s.onMessage = func(data []byte, _ bool) {
			switch string(data) {
			case "close":
				s.conn.Close()
			case "panic":
				panic("told to")
			case "flood":
				for s.conn.Send(textFrame(strings.Repeat("x", 4<<10))) == nil {
				}
			case "later":
				s.conn.Go(func() { s.conn.Ping() })
			default:
				_ = s.conn.Send(textFrame(string(data))) // It may be closing.
			}
		}
	})
	var clients sync.WaitGroup
	for n := range 16 {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		clients.Go(func() {
			for range 60 {
				churn(ts, r)
			}
		})
	}
	clients.Wait()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "end of all connections", func() bool {
		conns, addresses := ts.presentConns()
		return conns == 0 && addresses == 0 && len(ts.all()) == 0
	})
	if n := ts.Stats(); n.WebSockets != 0 || n.Pollings != 0 || n.QueueBytes != 0 {
		t.Errorf("stats %+v", n)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, s := range ts.sessions {
		if got := s.closedFor(); got == "" || strings.Contains(got, ", ") {
			t.Errorf("a session was closed for %q", got)
		}
	}
	t.Logf("%d sessions, %+v", len(ts.sessions), ts.Stats())
}

// churn is the life of one client, in which nothing that fails matters.
func churn(ts *testServer, r *rand.Rand) {
	messages := []string{"4a", "4close", "4panic", "4flood", "4later", "3", "1", "9", "b!", "6"}
	message := func() string { return messages[r.IntN(len(messages))] }
	sid := ""
	if r.IntN(2) == 0 {
		if res, err := http.Get(ts.http.URL + "/engine.io/?EIO=4&transport=polling"); err == nil {
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			var open struct{ SID string }
			if len(body) > 0 && json.Unmarshal(body[1:], &open) == nil {
				sid = "&sid=" + open.SID
			}
		}
		for range r.IntN(4) {
			method, body := "GET", io.Reader(http.NoBody)
			if r.IntN(2) == 0 {
				method, body = "POST", strings.NewReader(message())
			}
			request, err := http.NewRequest(method, ts.http.URL+"/engine.io/?transport=polling"+sid, body)
			if err != nil {
				panic(err)
			}
			client := http.Client{Timeout: time.Duration(1+r.IntN(40)) * time.Millisecond}
			if res, err := client.Do(request); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}
		if r.IntN(2) == 0 {
			return
		}
	}
	conn, err := net.Dial("tcp", ts.http.Listener.Addr().String())
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Duration(1+r.IntN(60)) * time.Millisecond))
	sent := "GET /engine.io/?EIO=4&transport=websocket" + sid + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if sid != "" {
		sent += text("2probe")
		if r.IntN(3) > 0 {
			sent += text("5")
		}
	}
	for range r.IntN(6) {
		sent += text(message())
	}
	if r.IntN(4) == 0 {
		sent = sent[:len(sent)-1-r.IntN(10)]
	}
	_, _ = io.WriteString(conn, sent)
	if r.IntN(2) == 0 {
		_, _ = io.Copy(io.Discard, bufio.NewReader(conn))
	}
}
