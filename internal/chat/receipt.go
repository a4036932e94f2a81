package chat

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// Status is how far a message has got with a member, or with all whom it concerns.
type Status string

// The statuses; each includes those before it.
const (
	Sent      Status = "sent"      // stored
	Delivered Status = "delivered" // it reached the member
	Read      Status = "read"
)

// Receipt is how far a member has got in a conversation. It only advances, and ReadSeq <= DeliveredSeq <= the last seq.
type Receipt struct {
	ConversationID id.Conversation `json:"conversation_id"`
	UserID         id.User         `json:"user_id"`
	DeliveredSeq   int64           `json:"delivered_seq"`
	ReadSeq        int64           `json:"read_seq"`
}

// Mark says up to where a member has got: up to a message, or if MessageID is empty, to a seq of a conversation.
type Mark struct {
	MessageID      string `json:"message_id,omitempty"`
	ConversationID string `json:"conversation_id,omitempty"`
	Seq            *int64 `json:"seq,omitempty"`
}

// marking is a mark on its way into the database.
type marking struct {
	mark
	kind Status // Delivered or Read
	seq  int64  // if the mark names a conversation
	done func(Receipt, error)

	// outcome, of the last attempt to commit
	receipt Receipt
	err     error
}

// mark is what a marking is about; the conversation or the message is empty.
type mark struct {
	user    id.User
	conv    id.Conversation
	message id.Message
}

func (m mark) bucket() id.Bucket {
	if m.message != "" {
		return m.message.Bucket()
	}
	return m.conv.Bucket()
}

// notFound is the answer to one who is no member, in the words that a mark of its kind gets if there is nothing at all.
func (m mark) notFound() error {
	if m.message != "" {
		return errMessageNotFound
	}
	return errNotFound
}

// newMarking checks a mark once. Errors: bad_request, not_found.
func newMarking(u id.User, at Mark, kind Status) (*marking, error) {
	m := &marking{mark: mark{user: u}, kind: kind}
	var err error
	switch {
	case at.MessageID != "":
		if m.message, err = id.ParseMessage(at.MessageID); err != nil {
			return nil, errMessageNotFound
		}
	case at.ConversationID == "" || at.Seq == nil || *at.Seq < 0:
		return nil, problem.New(problem.BadRequest, "A receipt takes a message_id, or a conversation_id and a seq.")
	default:
		if m.conv, err = id.ParseConversation(at.ConversationID); err != nil {
			return nil, errNotFound
		}
		m.seq = *at.Seq
	}
	return m, nil
}

// Read marks what u has read: all up to a message. What he has read has also reached him. It returns the receipt as stored,
// which is durable then. A mark below it changes nothing; one above the last message is clamped to it.
// Errors: bad_request, not_found (no such message or conversation, or not a member), overloaded, storage_full, unavailable.
func (c *Chat) Read(ctx context.Context, u id.User, at Mark) (Receipt, error) {
	m, err := newMarking(u, at, Read)
	if err != nil {
		return Receipt{}, err
	}
	type answer struct {
		r   Receipt
		err error
	}
	answers := make(chan answer, 1)
	m.done = func(r Receipt, err error) { answers <- answer{r, err} }
	if err := c.reads.Put(int(m.bucket()), m); err != nil {
		return Receipt{}, errTooMuch
	}
	select {
	case a := <-answers:
		return a.r, a.err
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// Delivered marks what has reached u: all up to a message. It does not wait: marks are gathered, those of a member into
// one write a second, so that a crash may lose the last second of them, and a time of delivery may be late by as much.
// One who turns out to be no member is not told.
// Errors: bad_request, not_found (an id that cannot be), overloaded.
func (c *Chat) Delivered(u id.User, at Mark) error {
	m, err := newMarking(u, at, Delivered)
	if err != nil {
		return err
	}
	return c.deliveries.add(m.mark, m.seq)
}

var errTooMuch = &problem.Error{Code: problem.Overloaded, Message: "The server has too much to do.", RetryAfter: time.Second}

// runReceipts commits marks until ctx ends; then it commits what was accepted.
func (c *Chat) runReceipts(ctx context.Context) {
	gathered := make(chan struct{})
	go func() {
		defer close(gathered)
		c.deliveries.run(ctx)
	}()
	_ = c.reads.Run(ctx) // ends with ctx's error
	<-gathered
}

// commitReads commits a batch and answers those who wait.
func (c *Chat) commitReads(ctx context.Context, items []*marking) {
	err := c.commitMarks(ctx, items)
	if err != nil {
		c.log.Error("receipts could not be stored", "marks", len(items), "err", err)
	}
	for _, m := range items {
		switch {
		case err != nil:
			m.done(Receipt{}, fmt.Errorf("chat: read: %w", err))
		case m.err != nil:
			m.done(Receipt{}, m.err)
		default:
			m.done(m.receipt, nil)
		}
	}
}

// commitMarks stores marks in one transaction. On nil each has its outcome, which is durable.
func (c *Chat) commitMarks(ctx context.Context, items []*marking) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("a batch of receipts panicked", "marks", len(items), "panic", p, "stack", string(debug.Stack()))
			err = errors.New("chat: the batch panicked")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	buckets := make([]id.Bucket, len(items))
	for i, m := range items {
		buckets[i] = m.bucket()
	}
	advance := func(l *logTx) error { return advanceReceipts(ctx, l, items) }
	// A receipt is no change of the log: no position is taken, and nothing is told.
	_, err = c.change(ctx, false, slices.Clone(buckets), advance)
	if errors.Is(err, sqldb.ErrCommitUnknown) {
		// A second attempt finds what the first one may have left.
		c.log.Warn("the outcome of a commit is unknown, looking", "err", err)
		_, err = c.change(ctx, false, buckets, advance)
	}
	return err
}

// place is where a member stands in a conversation, and where he will.
type place struct {
	before, after Receipt
	lastSeq       int64
	lastAt        *wire.Time
}

// advance moves the receipt for a mark of kind up to seq.
func (p *place) advance(kind Status, seq int64) {
	seq = min(seq, p.lastSeq)
	p.after.DeliveredSeq = max(p.after.DeliveredSeq, seq)
	if kind == Read {
		p.after.ReadSeq = max(p.after.ReadSeq, seq)
	}
}

// ranges appends the rows of the range log that tell of the advance.
func (p *place) ranges(rows [][]any, now wire.Time) [][]any {
	now = receiptTime(now, p.lastAt)
	r, b := p.after, p.before
	if r.ReadSeq > b.ReadSeq {
		rows = append(rows, r.rangeRow(Read, b.ReadSeq+1, r.ReadSeq, now))
	}
	if from := max(b.DeliveredSeq, r.ReadSeq) + 1; from <= r.DeliveredSeq {
		rows = append(rows, r.rangeRow(Delivered, from, r.DeliveredSeq, now))
	}
	return rows
}

// receiptTime is now, but not before the last message was made, as another node's clock may have it.
func receiptTime(now wire.Time, lastMessage *wire.Time) wire.Time {
	if lastMessage == nil {
		return now
	}
	return max(now, *lastMessage)
}

// advanceReceipts reads where the members stand, under the lock, moves them for all items, and writes what moved: one row of
// members for each of them, and one of the range log for each kind of advance.
func advanceReceipts(ctx context.Context, l *logTx, items []*marking) error {
	places, err := loadPlaces(ctx, l, items)
	if err != nil {
		return err
	}
	var cursors, ranges [][]any
	var moved []*place
	for _, m := range items {
		at, found := places[m.mark]
		if !found {
			m.err = m.notFound()
			continue
		}
		m.err = nil
		before := at.after
		at.advance(m.kind, max(at.seq, m.seq))
		if at.after != before && before == at.before {
			moved = append(moved, at.place)
		}
	}
	for _, p := range moved {
		cursors = append(cursors, p.after.cursorRow())
		ranges = p.ranges(ranges, l.now)
	}
	l.Queue(saveCursors, cursors, nil)
	l.Queue(insertRanges, ranges, nil)
	for _, m := range items {
		if m.err == nil {
			m.receipt = places[m.mark].after
			// Without a write of its own, what is answered may be no more durable than the transaction that wrote it.
			l.found = l.found || len(moved) == 0 && m.done != nil
		}
	}
	return nil
}

// MessageReceipts is how far a message has got with those whom it concerns: the members when it was sent but its sender.
// Who left since is among them, with what he had received by then.
type MessageReceipts struct {
	// Status is how far it has got with all of them; Sent if it concerns nobody.
	Status  Status
	Counts  ReceiptCounts
	Readers []Reader // in the order of their ids
	Next    id.User  // after whom the next page begins; empty on the last one
}

// ReceiptCounts are how many a message concerns, how many of them it has reached, and how many have read it:
// Read <= Delivered <= Sent.
type ReceiptCounts struct {
	Read      int64 `json:"read"`
	Delivered int64 `json:"delivered"`
	Sent      int64 `json:"sent"`
}

func (n ReceiptCounts) status() Status {
	switch {
	case n.Sent == 0 || n.Delivered < n.Sent:
		return Sent
	case n.Read < n.Sent:
		return Delivered
	}
	return Read
}

// Reader is one whom a message concerns.
type Reader struct {
	UserID      id.User    `json:"user_id"`
	Status      Status     `json:"status" enum:"sent,delivered,read"`
	DeliveredAt *wire.Time `json:"delivered_at"` // to a second after it was
	ReadAt      *wire.Time `json:"read_at"`
}

// Receipts tells a member how far a message has got: exact counts, and a page of at most limit readers after the one
// that a page ended with. The counts take one pass over the memberships of the conversation, those that ended too; the
// page takes two look-ups for each of its rows.
// Errors: not_found (no such message, or not a member).
func (c *Chat) Receipts(ctx context.Context, u id.User, messageID string, after id.User, limit int) (out MessageReceipts, err error) {
	mid, err := id.ParseMessage(messageID)
	if err != nil {
		return out, errMessageNotFound
	}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		m, err := loadSent(ctx, tx, mid, u)
		if err != nil {
			return err
		}
		if out.Counts, err = countReceipts(ctx, tx, m); err != nil {
			return err
		}
		out.Status = out.Counts.status()
		if out.Readers, err = listReaders(ctx, tx, m, after, limit+1); err != nil {
			return err
		}
		if len(out.Readers) > limit {
			out.Readers = out.Readers[:limit]
			out.Next = out.Readers[limit-1].UserID
		}
		return nil
	})
	if err != nil {
		return MessageReceipts{}, fmt.Errorf("chat: receipts: %w", err)
	}
	return out, nil
}
