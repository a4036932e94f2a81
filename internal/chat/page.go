package chat

import (
	"cmp"
	"slices"

	"parley/internal/id"
)

// Entry is one thing that a member who catches up has missed.
type Entry struct {
	Kind         EntryKind
	Pos          int64 // where it stands in its bucket's log
	Conversation *Conversation
	Member       *Member // the caller's own membership
	Message      *Message

	conversation id.Conversation
}

// EntryKind says what a missed thing is.
type EntryKind uint8

// The kinds of an Entry.
const (
	EntryRemoved      EntryKind = iota // the caller is no longer a member; only conversation ids are set
	EntryJoined                        // the caller became a member: Conversation and Member, then its newest messages, as new
	EntryConversation                  // settings or members changed: Conversation and Member
	EntryMessageNew                    // in its present state, which may be a tombstone
	EntryMessageChanged
)

// ConversationID is what the entry belongs to.
func (e *Entry) ConversationID() id.Conversation { return e.conversation }

// messageEntry places a message in the page (n, m] of its bucket's log: as new where it was made, if
// that lies in the page; else as changed where it was last changed, if that does and it was made before.
// So a creation is never hidden by a later change, and shows the state of its last one.
func messageEntry(msg *Message, n, m int64) (Entry, bool) {
	e := Entry{Message: msg, conversation: msg.ConversationID}
	switch {
	case msg.made > n && msg.made <= m:
		e.Kind, e.Pos = EntryMessageNew, msg.made
	case msg.made <= n && msg.Pos > n && msg.Pos <= m:
		e.Kind, e.Pos = EntryMessageChanged, msg.Pos
	default:
		return Entry{}, false
	}
	return e, true
}

// stream is one ordered source of entries; cut says that there is more behind the last one.
type stream struct {
	entries []Entry
	cut     bool
}

// mergePage merges the streams of one bucket into a page that reaches up to position upTo, which is m
// when nothing is left. It takes about limit entries: those of one position stay together. A page
// that is not the last is not empty, so paging ends.
func mergePage(streams []stream, m int64, limit int) (page []Entry, upTo int64) {
	upTo = m
	for _, s := range streams {
		page = append(page, s.entries...)
		if s.cut {
			// What lies beyond a stream's cut may have something of that stream before it.
			upTo = min(upTo, s.entries[len(s.entries)-1].Pos)
		}
	}
	slices.SortStableFunc(page, func(a, b Entry) int { return cmp.Compare(a.Pos, b.Pos) })
	end, _ := slices.BinarySearchFunc(page, upTo, func(e Entry, pos int64) int {
		if e.Pos <= pos {
			return -1
		}
		return 1
	})
	page = page[:end]
	if len(page) > limit {
		upTo = page[limit-1].Pos
		for limit < len(page) && page[limit].Pos == upTo {
			limit++
		}
		page = page[:limit]
	}
	return page, upTo
}
