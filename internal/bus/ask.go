package bus

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// asked is a question of ours.
type asked struct {
	subject, reply string
	wanted         chan struct{} // holds one: the body may be sent
	settled        chan struct{} // closed when answer and err stand

	// Guarded by exchanges.mu.
	begun  bool      // the question has been written
	ended  bool      // settled is closed
	heard  time.Time // when the answerer last gave a sign of life, or else when the question was made
	beaten bool      // a beat may have gone out
	pieces uint32
	bytes  int // of exchanges.bytes
	answer []byte
	err    error
}

// Ask sends a question to whoever has given [Bus.Answer] for subject, and returns the answer.
//
// The body is read, by Ask, only when the other side reads it; nil is an empty one. When ctx ends, the context of the
// other side ends too. The subject should have one node to answer: with more, each would.
//
// Errors: [ErrNobody], at once, when no node answers for the subject; [ErrBusy] when this node or the other has too
// many questions or bytes under way; [ErrLost] when the other side ended or went silent, or a part was lost on the way, so
// that nobody knows whether the question was acted on; [ErrSubject]; [ErrPayload] for a head of more than 512 KiB;
// [ErrClosed]; ctx's error. An error of the body is the other side's to judge.
func (b *Bus) Ask(ctx context.Context, subject string, head []byte, body io.Reader) ([]byte, error) {
	if !tellable(subject) {
		return nil, ErrSubject
	}
	if len(head) > pieceBytes {
		return nil, ErrPayload
	}
	q, err := b.newAsked(subject)
	if err != nil {
		return nil, err
	}
	defer b.forgetAsked(q)
	if !b.conn.IsConnected() {
		return nil, ErrLost
	}
	if err := b.publish(q.subject, q.reply, question, 0, head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	b.exchanges.mu.Lock()
	q.begun = true
	b.exchanges.mu.Unlock()

	wanted := q.wanted
	for {
		select {
		case <-q.settled:
			return q.answer, q.err
		case <-ctx.Done():
			b.signal(q.subject, q.reply, cancel)
			return nil, ctx.Err()
		case <-wanted:
			wanted = nil
			if err := b.sendBody(q, body); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrLost, err)
			}
		}
	}
}

func (b *Bus) newAsked(subject string) (*asked, error) {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, ErrClosed
	}
	if len(x.asked) >= exchangesMax {
		return nil, ErrBusy
	}
	x.made++
	reply := x.inbox + "." + strconv.FormatUint(x.made, 36)
	q := &asked{subject: subject, reply: reply, wanted: make(chan struct{}, 1), settled: make(chan struct{}), heard: time.Now()}
	x.asked[reply] = q
	return q, nil
}

func (b *Bus) forgetAsked(q *asked) {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.asked, q.reply)
	x.bytes -= q.bytes
}

// settle ends the wait of q, unless it has ended. Called with exchanges.mu held.
func (q *asked) settle(err error) {
	if q.ended {
		return
	}
	q.ended = true
	if q.err = err; err != nil {
		q.answer = nil
	}
	close(q.settled)
}

// sendBody sends body in pieces, until it ends or the exchange does. An empty or short piece is the last.
func (b *Bus) sendBody(q *asked, body io.Reader) error {
	if body == nil {
		body = strings.NewReader("")
	}
	for number := uint32(0); ; number++ {
		data, err := io.ReadAll(io.LimitReader(body, pieceBytes))
		if err != nil {
			b.signal(q.subject, q.reply, broken)
			return nil // The other side decides what that means.
		}
		k := piece
		if len(data) < pieceBytes {
			k = last
		}
		if err := b.publish(q.subject, q.reply, k, number, data); err != nil || k == last {
			return err
		}
		select {
		case <-q.settled:
			return nil // It was answered without the rest.
		default:
		}
	}
}

// answerCame handles a message for a question of ours.
func (b *Bus) answerCame(m *nats.Msg) {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.asked[m.Subject]
	if q == nil || q.ended {
		return // Asked no more.
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" { // NATS client protocol, "no responders"
		if q.beaten {
			q.settle(ErrLost) // The question may have found somebody, and only the beat nobody.
		} else {
			q.settle(ErrNobody)
		}
		return
	}
	q.heard = time.Now()
	k, number, data := decode(m.Data)
	switch k {
	case want:
		select {
		case q.wanted <- struct{}{}:
		default: // It is wanted once.
		}
	case piece, last:
		switch {
		case number != q.pieces:
			q.settle(ErrLost)
		case !x.take(&q.bytes, data):
			q.settle(ErrBusy)
		default:
			q.pieces++
			if q.answer == nil {
				q.answer = data
			} else {
				q.answer = append(q.answer, data...)
			}
			if k == last {
				q.settle(nil)
			}
		}
	case busy:
		q.settle(ErrBusy)
	case gone:
		q.settle(ErrLost)
	}
}
