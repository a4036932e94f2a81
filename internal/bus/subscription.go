package bus

import (
	"fmt"

	"github.com/nats-io/nats.go"
)

// A Subscription is an interest in a subject, until it is ended.
type Subscription struct {
	bus *Bus
	sub *nats.Subscription
}

// Hear has f called with each message on subject, which may hold the wildcards * (one token) and > (the rest).
//
// Calls come one at a time, in the order in which the messages reached this node, from a goroutine of the
// subscription. What arrives while f is behind waits, within bounds; beyond them it is dropped and counted.
// Other nodes learn of the interest a moment later: what they tell until then is not heard, so whoever joins what he
// hears to what is stored hears first and reads afterwards, and reads again later.
//
// Errors: an unusable subject, [ErrClosed].
func (b *Bus) Hear(subject string, f func(Message)) (*Subscription, error) {
	return b.HearWithin(pendingMessagesMax, pendingBytesMax, subject, f)
}

// HearWithin is Hear with bounds of its own on what waits, for one who has many subscriptions: each has a goroutine and
// may fill up to its bounds.
func (b *Bus) HearWithin(messagesMax, bytesMax int, subject string, f func(Message)) (*Subscription, error) {
	return b.subscribe(messagesMax, bytesMax, subject, func(m *nats.Msg) { f(Message{m.Subject, m.Data}) })
}

func (b *Bus) subscribe(messagesMax, bytesMax int, subject string, f nats.MsgHandler) (*Subscription, error) {
	b.subsMu.Lock()
	defer b.subsMu.Unlock()
	if b.subsClosed {
		return nil, ErrClosed
	}
	sub, err := b.conn.Subscribe(subject, f)
	if err != nil {
		return nil, fmt.Errorf("bus: hear %q: %w", subject, err)
	}
	b.handlers.Add(1)
	sub.SetClosedHandler(func(string) { b.handlers.Done() })
	if err := sub.SetPendingLimits(messagesMax, bytesMax); err != nil {
		return nil, fmt.Errorf("bus: hear %q: %w", subject, err)
	}
	s := &Subscription{b, sub}
	b.subs[s] = struct{}{}
	return s, nil
}

// Unsubscribe ends the subscription; what is still waiting is discarded. It may be called from the handler, and does
// not wait for it: a call under way may still be running when it returns, but no further one begins. A second call
// does nothing.
func (s *Subscription) Unsubscribe() {
	s.bus.subsMu.Lock()
	defer s.bus.subsMu.Unlock()
	if _, ok := s.bus.subs[s]; !ok || s.bus.subsClosed {
		return // Ended already, or Close ends it.
	}
	delete(s.bus.subs, s)
	s.bus.dropped.Add(s.Dropped())
	// The only errors are a closed connection and an ended subscription: the wish is fulfilled.
	_ = s.sub.Unsubscribe()
}

// Dropped counts the messages that were lost because the handler was too slow.
func (s *Subscription) Dropped() uint64 {
	n, err := s.sub.Dropped()
	if err != nil {
		return 0 // Ended: Unsubscribe has taken the count.
	}
	return uint64(n)
}
