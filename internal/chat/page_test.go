package chat

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"parley/internal/id"
	"pgregory.net/rapid"
)

// modelBucket is a bucket's log as rows in memory: what the queries of streams select from.
type modelBucket struct {
	head     int64
	messages []*Message
}

func (b *modelBucket) next() int64 { b.head++; return b.head }

func (b *modelBucket) stream(cid id.Conversation, made bool, n, m int64, limit int) stream {
	var s stream
	var rows []*Message
	for _, msg := range b.messages {
		in := msg.made > n && msg.made <= m
		if !made {
			in = msg.Pos > msg.made && msg.Pos > n && msg.Pos <= m && msg.made <= n
		}
		if msg.ConversationID == cid && in {
			rows = append(rows, msg)
		}
	}
	at := func(m *Message) int64 {
		if made {
			return m.made
		}
		return m.Pos
	}
	slices.SortFunc(rows, func(a, b *Message) int { return cmp.Compare(at(a), at(b)) })
	s.cut = len(rows) > limit
	for _, msg := range rows[:min(len(rows), limit)] {
		copied := *msg
		if e, ok := messageEntry(&copied, n, m); ok {
			s.entries = append(s.entries, e)
		}
	}
	return s
}

// TestPages lets messages be made, edited and deleted while a client pages through the log with a cursor
// that it may lose some progress of. In the end he has every message in its last state, saw each creation
// before any change of it, and never saw a creation late: behind a message made after it in its conversation.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b modelBucket
		convs := []id.Conversation{"a", "b", "c"}
		seqs := map[id.Conversation]int64{}
		change := func() {
			if len(b.messages) == 0 || rapid.Bool().Draw(t, "new") {
				cid := rapid.SampledFrom(convs).Draw(t, "conversation")
				seqs[cid]++
				p := b.next()
				b.messages = append(b.messages, &Message{ConversationID: cid, Seq: seqs[cid], made: p, Pos: p, ID: id.Message(fmt.Sprint(cid, seqs[cid]))})
				return
			}
			m := rapid.SampledFrom(b.messages).Draw(t, "message")
			m.Pos = b.next()
			m.IsDeleted = m.IsDeleted || rapid.Bool().Draw(t, "delete")
		}
		known := map[id.Message]Message{}
		var cursor int64
		quiet := false
		page := func() {
			// The upper position is fixed first; the rows are read later, and may have moved beyond it.
			m := b.head
			if !quiet {
				for range rapid.IntRange(0, 2).Draw(t, "meanwhile") {
					change()
				}
			}
			limit := rapid.IntRange(1, 4).Draw(t, "limit")
			var streams []stream
			for _, cid := range convs {
				streams = append(streams, b.stream(cid, true, cursor, m, limit), b.stream(cid, false, cursor, m, limit))
			}
			entries, upTo := mergePage(streams, m, limit)
			if upTo < m && len(entries) == 0 {
				t.Fatalf("a page up to %d of %d is empty", upTo, m)
			}
			if upTo < cursor || upTo > m {
				t.Fatalf("a page from %d to %d reaches %d", cursor, m, upTo)
			}
			var before int64
			for _, e := range entries {
				if e.Pos < before || e.Pos > upTo {
					t.Fatalf("entry at %d after %d in a page up to %d", e.Pos, before, upTo)
				}
				before = e.Pos
				old, seen := known[e.Message.ID]
				if e.Kind == EntryMessageChanged && !seen {
					t.Fatalf("%s was told as changed and never as made", e.Message.ID)
				}
				if !seen {
					for _, k := range known {
						if k.ConversationID == e.Message.ConversationID && k.Seq > e.Message.Seq {
							t.Fatalf("%s came after %s", e.Message.ID, k.ID)
						}
					}
				}
				if e.Message.Pos >= old.Pos {
					known[e.Message.ID] = *e.Message
				}
			}
			cursor = upTo
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "page") {
				page()
			} else {
				change()
			}
		}
		for quiet = true; cursor < b.head; {
			page()
		}
		for _, m := range b.messages {
			if k, ok := known[m.ID]; !ok || k.Pos != m.Pos || k.IsDeleted != m.IsDeleted {
				t.Errorf("%s is known as %+v, and is %+v", m.ID, k, *m)
			}
		}
	})
}

func TestMessageEntry(t *testing.T) {
	for _, tt := range []struct {
		made, changed, n, m int64
		kind                EntryKind
		pos                 int64
		ok                  bool
	}{
		{5, 5, 0, 9, EntryMessageNew, 5, true},
		{5, 7, 0, 9, EntryMessageNew, 5, true},
		{5, 7, 4, 5, EntryMessageNew, 5, true}, // its change lies beyond the page and does not hide it
		{5, 7, 5, 9, EntryMessageChanged, 7, true},
		{5, 7, 7, 9, 0, 0, false},
		{5, 7, 5, 6, 0, 0, false},
		{5, 5, 5, 9, 0, 0, false},
	} {
		e, ok := messageEntry(&Message{made: tt.made, Pos: tt.changed}, tt.n, tt.m)
		if ok != tt.ok || e.Kind != tt.kind || e.Pos != tt.pos {
			t.Errorf("message made at %d, changed at %d, in (%d, %d]: %+v, %v", tt.made, tt.changed, tt.n, tt.m, e, ok)
		}
	}
}
