package bus

import (
	"context"
	"io"
	"time"

	"github.com/nats-io/nats.go"
)

// answered is a question of another node that is being answered here. It is the reader of the question's body.
type answered struct {
	bus     *Bus
	reply   string
	ctx     context.Context // ends when nobody waits for the answer any more
	cancel  context.CancelFunc
	arrived chan struct{} // holds one: there is more in body, or bodyEnd stands

	// Guarded by exchanges.mu.
	wants   bool // the body is to be sent
	heard   time.Time
	pieces  uint32
	bytes   int // of exchanges.bytes
	body    [][]byte
	bodyEnd error // io.EOF after the last piece
}

// Answer has f called for each question put to subject by [Bus.Ask], with its head and body, and sends what f returns.
//
// Each call has a goroutine of its own; beyond a bound the question is refused. ctx ends when the one who asked stops
// waiting or has gone, and when the bus is closed: then f's answer goes nowhere. The body arrives from the first Read
// on; a reading error is ctx's or says that the asker could not read it to its end. It is not to be read after f
// returns.
//
// Errors: as of [Bus.Hear].
func (b *Bus) Answer(subject string, f func(ctx context.Context, head []byte, body io.Reader) []byte) (*Subscription, error) {
	return b.subscribe(pendingMessagesMax, pendingBytesMax, subject, func(m *nats.Msg) {
		k, number, data := decode(m.Data)
		if k == 0 || !tellable(m.Reply) {
			return // None of ours.
		}
		if k == question {
			b.begin(m.Reply, data, f)
		} else {
			b.askerSent(m.Reply, k, number, data)
		}
	})
}

// begin starts the answer to a question.
func (b *Bus) begin(reply string, head []byte, f func(context.Context, []byte, io.Reader) []byte) {
	x := &b.exchanges
	a := &answered{bus: b, reply: reply, arrived: make(chan struct{}, 1), heard: time.Now()}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	x.mu.Lock()
	taken := !x.closed && len(x.answered) < exchangesMax && x.answered[reply] == nil && x.take(&a.bytes, head)
	if taken {
		x.answered[reply] = a
	}
	x.mu.Unlock()
	if !taken {
		a.cancel()
		b.signal(reply, "", busy)
		return
	}
	b.handlers.Go(func() {
		defer a.end()
		if answer := f(a.ctx, head, a); a.ctx.Err() == nil {
			b.sendAnswer(a, answer)
		}
	})
}

func (a *answered) end() {
	a.cancel()
	x := &a.bus.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.answered, a.reply)
	x.bytes -= a.bytes
}

// sendAnswer sends an answer in pieces. What cannot be sent the asker misses at his next beat.
func (b *Bus) sendAnswer(a *answered, answer []byte) {
	for number := uint32(0); ; number++ {
		n, k := len(answer), last
		if n > pieceBytes {
			n, k = pieceBytes, piece
		}
		if b.publish(a.reply, "", k, number, answer[:n]) != nil || k == last {
			return
		}
		answer = answer[n:]
	}
}

// askerSent handles what follows a question.
func (b *Bus) askerSent(reply string, k kind, number uint32, data []byte) {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.answered[reply]
	if a == nil {
		if k == beat {
			b.signal(reply, "", gone)
		}
		return
	}
	a.heard = time.Now()
	switch k {
	case beat:
		b.signal(reply, "", beat)
		if a.wants && a.pieces == 0 {
			b.signal(reply, "", want) // The first may have been lost.
		}
	case cancel:
		a.cancel()
	case broken:
		a.more(nil, io.ErrUnexpectedEOF)
	case piece, last:
		var end error
		switch {
		case number != a.pieces || !x.take(&a.bytes, data):
			data, end = nil, io.ErrUnexpectedEOF
		case k == last:
			end = io.EOF
		}
		a.pieces++
		a.more(data, end)
	}
}

// more adds to the body, unless it has ended. Called with exchanges.mu held.
func (a *answered) more(data []byte, end error) {
	if a.bodyEnd != nil {
		return
	}
	if len(data) > 0 {
		a.body = append(a.body, data)
	}
	a.bodyEnd = end
	select {
	case a.arrived <- struct{}{}:
	default:
	}
}

// Read reads the body of the question.
func (a *answered) Read(p []byte) (int, error) {
	for {
		n, err := a.readArrived(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-a.arrived:
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		}
	}
}

func (a *answered) readArrived(p []byte) (int, error) {
	a.bus.exchanges.mu.Lock()
	defer a.bus.exchanges.mu.Unlock()
	if !a.wants {
		a.wants = true
		a.bus.signal(a.reply, "", want)
	}
	if len(a.body) == 0 {
		return 0, a.bodyEnd
	}
	n := copy(p, a.body[0])
	if a.body[0] = a.body[0][n:]; len(a.body[0]) == 0 {
		a.body = a.body[1:]
	}
	return n, nil
}
