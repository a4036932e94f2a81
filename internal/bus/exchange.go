package bus

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Bounds of questions and answers.
const (
	// pieceBytes is how much of a body or an answer goes into one message: half of what a NATS allows by default.
	pieceBytes = 512 << 10
	// exchangesMax bounds the questions of this node that wait for their answer, and those that it answers at a time.
	exchangesMax = 8 << 10
	// arrivedBytesMax bounds what has arrived of all bodies and answers of this node and is not yet used.
	arrivedBytesMax = 128 << 20
	// beatEvery is how often both sides of a question that waits assure each other; after silentBeats of silence
	// the other one is taken to be gone.
	beatEvery   = 2 * time.Second
	silentBeats = 4
)

// Errors of [Bus.Ask].
var (
	ErrNobody = errors.New("bus: nobody there to answer")
	ErrBusy   = errors.New("bus: too much to answer at a time")
	ErrLost   = errors.New("bus: the answer was lost")
)

// A message of an exchange is a kind, the number of the piece in four bytes, and data. Those of the asker go to the
// subject, with the exchange's own subject as the one to reply to; those of the answerer go to that.
const headerBytes = 5

type kind byte

const (
	question kind = 'q' // asker: the exchange begins; data is the head
	want     kind = 'w' // answerer: the body may come
	piece    kind = 'p' // either: of the body or the answer; more follow
	last     kind = 'l' // either: the last piece
	broken   kind = 'x' // asker: there will be no more of the body
	cancel   kind = 'c' // asker: nobody waits for the answer any more
	beat     kind = 'b' // either: still here; the answerer replies with the same
	busy     kind = 'f' // answerer: not taken
	gone     kind = 'g' // answerer: there is no such exchange, or no more
)

func encode(k kind, number uint32, data []byte) []byte {
	m := make([]byte, headerBytes, headerBytes+len(data))
	m[0] = byte(k)
	binary.BigEndian.PutUint32(m[1:], number)
	return append(m, data...)
}

// decode reads a message of an exchange. One that is too short is none of ours, and of no kind.
func decode(m []byte) (k kind, number uint32, data []byte) {
	if len(m) < headerBytes {
		return 0, 0, nil
	}
	return kind(m[0]), binary.BigEndian.Uint32(m[1:]), m[headerBytes:]
}

// exchanges are the questions under way, by the subject that is replied to.
type exchanges struct {
	mu       sync.Mutex
	asked    map[string]*asked
	answered map[string]*answered
	inbox    string // what the subjects of our exchanges begin with
	made     uint64
	bytes    int // arrived, of all
	closed   bool
}

// take adds data to what has arrived, unless there is too much. Called with mu held.
func (x *exchanges) take(arrived *int, data []byte) bool {
	if x.bytes+len(data) > arrivedBytesMax {
		return false
	}
	x.bytes += len(data)
	*arrived += len(data)
	return true
}

// publish writes one message of an exchange, and waits for the connection meanwhile: what is long must not crowd out
// the hints in the queue.
func (b *Bus) publish(subject, reply string, k kind, number uint32, data []byte) error {
	return b.conn.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: encode(k, number, data)})
}

// signal queues a message of an exchange that has no data. A full queue loses it, and beats or their absence make it good.
func (b *Bus) signal(subject, reply string, k kind) {
	_ = b.post(outgoing{Message{subject, encode(k, 0, nil)}, reply}) // As above.
}

// tend sends the beats, and ends what has been silent for too long.
func (b *Bus) tend() {
	ticker := time.NewTicker(b.beatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-ticker.C:
		}
		for _, q := range b.look(time.Now()) {
			b.signal(q.subject, q.reply, beat)
		}
	}
}

// look ends the exchanges that have been silent for too long, and returns those of ours that go on.
func (b *Bus) look(now time.Time) (on []*asked) {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, q := range x.asked {
		if now.Sub(q.heard) > silentBeats*b.beatEvery {
			q.settle(ErrLost)
		} else if q.begun {
			q.beaten = true
			on = append(on, q)
		}
	}
	for _, a := range x.answered {
		if now.Sub(a.heard) > silentBeats*b.beatEvery {
			a.cancel()
		}
	}
	return on
}

// endExchanges has every Ask return and every answer given up.
func (b *Bus) endExchanges() {
	x := &b.exchanges
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	for _, q := range x.asked {
		q.settle(ErrClosed)
	}
	for _, a := range x.answered {
		a.cancel()
	}
}
