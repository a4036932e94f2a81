package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"parley/internal/chat"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// TestUnreadKeepsTheClientsPlace holds a database that is away apart from a cursor that is none: only the latter has
// the client start over.
func TestUnreadKeepsTheClientsPlace(t *testing.T) {
	for err, reset := range map[error]bool{
		chat.ErrCursor: true, sqldb.ErrUnavailable: false, sqldb.ErrFull: false, errors.New("unforeseen"): false,
	} {
		if got := unread(fmt.Errorf("chat: catch up: %w", err), nil); got.Reset != reset || !got.More {
			t.Errorf("after %v: %+v, want reset %v", err, got, reset)
		}
	}
}

// TestApplyOutlivesAPanic hands the gateway a commit that it cannot tell: it is counted, and the next one is told.
func TestApplyOutlivesAPanic(t *testing.T) {
	w := newWorld()
	panics := prometheus.NewCounter(prometheus.CounterOpts{Name: "panics"})
	g := &Gateway{hub: w.h, parts: Parts{Log: slog.New(slog.DiscardHandler)}, metrics: metrics{panics: panics}}
	c := &client{got: map[id.Bucket][]int64{}}
	c.s = &session{out: c, phase: live}
	u := w.h.attach("ann", c.s, 0)
	cid := w.convs[0]
	w.h.enter(cid.Bucket(), cid, u)

	g.Apply(chat.Commit{Bucket: cid.Bucket(), Pos: 1, Changes: []chat.Change{{Kind: chat.MessageNew, Pos: 1, Conversation: cid}}}) // no message
	if n := testutil.ToFloat64(panics); n != 1 {
		t.Errorf("%v panics counted, want 1", n)
	}
	g.Apply(chat.Commit{Bucket: cid.Bucket(), Pos: 2, Changes: []chat.Change{{
		Kind: chat.MessageNew, Pos: 2, Conversation: cid, Row: []byte(`{}`), Message: &chat.MessageRef{SenderID: "eve"}}}})
	if got := c.got[cid.Bucket()]; len(got) != 1 || got[0] != 2 {
		t.Errorf("told %v after the panic, want position 2", got)
	}
}
