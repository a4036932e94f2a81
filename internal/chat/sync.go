package chat

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

const (
	// syncLimit and syncLimitMax are the changes of a page of sync: by default, and at the most (but for
	// those of one position, which stay together).
	syncLimit    = 200
	syncLimitMax = 1000
	// newestPage is how many messages come with a conversation that was joined.
	newestPage = 50
	// fillMax is how many positions of a bucket's log the Feed reads at once.
	fillMax = 4096
)

// Membership is one conversation of a user, and where it last moved.
type Membership struct {
	Conversation id.Conversation
	Member       Member

	changedPos int64 // of the conversation's settings
	lastPos    int64 // of anything in it
}

// Memberships are all of a user's, the ended ones too, in the order of their buckets. Bounded by the
// conversations he was ever in.
func (c *Chat) Memberships(ctx context.Context, u id.User) (ms []Membership, err error) {
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		ms, err = listMemberships(ctx, tx, u)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chat: memberships: %w", err)
	}
	return ms, nil
}

// Catchup is what a client missed.
type Catchup struct {
	Entries []Entry
	Next    Positions // how far they go
	More    bool      // not as far as was asked
	Reset   bool      // the cursor belongs to another history: nothing it stands for can be relied on
}

// CatchUp reads what u missed from his cursor to the positions to, all of which have been committed, at
// most about limit entries. Errors: bad_request (the cursor).
func (c *Chat) CatchUp(ctx context.Context, u id.User, cursor string, to Positions, limit int) (out Catchup, err error) {
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		out, err = c.catchUp(ctx, tx, u, cursor, to, limit)
		return err
	})
	if err != nil {
		return Catchup{}, fmt.Errorf("chat: catch up: %w", err)
	}
	return out, nil
}

func (c *Chat) catchUp(ctx context.Context, tx *sqldb.Tx, u id.User, cursor string, to Positions, limit int) (Catchup, error) {
	from, reset, err := c.place(ctx, tx, cursor, to)
	if err != nil {
		return Catchup{}, err
	}
	if reset {
		return Catchup{Next: to, Reset: true}, nil
	}
	// The memberships are read no earlier than to: one that ended by then is known to have ended.
	ms, err := listMemberships(ctx, tx, u)
	if err != nil {
		return Catchup{}, err
	}
	return c.pages(ctx, tx, u, ms, from, to, limit)
}

// pages reads bucket after bucket until limit entries are there.
func (c *Chat) pages(ctx context.Context, tx *sqldb.Tx, u id.User, ms []Membership, from, to Positions, limit int) (Catchup, error) {
	out := Catchup{Next: maps.Clone(from)}
	if out.Next == nil {
		out.Next = Positions{}
	}
	for len(ms) > 0 {
		b := ms[0].Conversation.Bucket()
		end := slices.IndexFunc(ms, func(m Membership) bool { return m.Conversation.Bucket() != b })
		if end < 0 {
			end = len(ms)
		}
		mine := ms[:end]
		ms = ms[end:]
		n, m := from[b], to[b]
		if n >= m {
			continue
		}
		if limit-len(out.Entries) <= 0 {
			out.More = true
			continue
		}
		streams, err := c.streams(ctx, tx, u, mine, n, m, limit-len(out.Entries))
		if err != nil {
			return out, err
		}
		page, upTo := mergePage(streams, m, limit-len(out.Entries))
		out.Entries = append(out.Entries, page...)
		out.Next[b] = upTo
		out.More = out.More || upTo < m
	}
	return out, nil
}

// streams reads what the conversations of one bucket have in (n, m], each stream up to limit entries.
func (c *Chat) streams(ctx context.Context, tx *sqldb.Tx, u id.User, mine []Membership, n, m int64, limit int) ([]stream, error) {
	var streams []stream
	for _, ms := range mine {
		itself := func(kind EntryKind, pos int64) (Entry, error) {
			cv, member, err := loadConversation(ctx, tx, ms.Conversation, u)
			if err == nil {
				err = c.addParticipants(ctx, tx, &cv)
			}
			cv.Role = member.Role
			return Entry{Kind: kind, Pos: pos, Conversation: &cv, Member: &member, conversation: ms.Conversation}, err
		}
		base := n
		switch {
		case !ms.Member.Active:
			if pos := ms.Member.ChangedPos; pos > n && pos <= m {
				streams = append(streams, stream{entries: []Entry{{Kind: EntryRemoved, Pos: pos, conversation: ms.Conversation, Member: &ms.Member}}})
			}
			continue
		case ms.Member.joinedPos > m:
			continue // it comes later, as joined
		case ms.Member.joinedPos > n:
			base = ms.Member.joinedPos
			e, err := itself(EntryJoined, base)
			if err != nil {
				return nil, err
			}
			page, err := selectNewest(ctx, tx, ms.Conversation, base, newestPage)
			if err != nil {
				return nil, err
			}
			joined := stream{entries: []Entry{e}}
			for i := range page {
				seen := page[i].seenBy(u, ms.Member.Role)
				joined.entries = append(joined.entries, Entry{Kind: EntryMessageNew, Pos: base, Message: &seen, conversation: ms.Conversation})
			}
			streams = append(streams, joined)
		}
		if ms.changedPos > base && ms.changedPos <= m {
			e, err := itself(EntryConversation, ms.changedPos)
			if err != nil {
				return nil, err
			}
			streams = append(streams, stream{entries: []Entry{e}})
		}
		if ms.lastPos <= base {
			continue
		}
		for _, query := range []string{selectMade, selectChanged} {
			rows, err := selectMessagePage(ctx, tx, query, ms.Conversation, base, m, limit+1)
			if err != nil {
				return nil, err
			}
			s := stream{cut: len(rows) > limit}
			for i := range rows[:min(len(rows), limit)] {
				seen := rows[i].seenBy(u, ms.Member.Role)
				if e, ok := messageEntry(&seen, base, m); ok {
					s.entries = append(s.entries, e)
				}
			}
			streams = append(streams, s)
		}
	}
	return streams, nil
}

// SyncPage is the answer to sync.
type SyncPage struct {
	Changes []SyncChange `json:"changes"`
	Cursor  string       `json:"cursor"`
	HasMore bool         `json:"has_more"`
	Reset   bool         `json:"reset,omitempty"`
}

// SyncChange is one thing that changed; the field that kind names is set.
type SyncChange struct {
	Kind         string          `json:"kind" enum:"message,conversation,membership"`
	Message      *Message        `json:"message,omitempty"`
	Conversation *Conversation   `json:"conversation,omitempty"`
	Membership   *SyncMembership `json:"membership,omitempty"`
}

// SyncMembership is the caller's own place in a conversation; when active is false it has ended.
type SyncMembership struct {
	ConversationID id.Conversation `json:"conversation_id"`
	UserID         id.User         `json:"user_id"`
	Role           Role            `json:"role"`
	Active         bool            `json:"active"`
	JoinedAt       wire.Time       `json:"joined_at"`
	DeliveredSeq   int64           `json:"delivered_seq"`
	ReadSeq        int64           `json:"read_seq"`
}

// Sync answers what changed for u since cursor, one page of at most about limit changes (0: 200). Without a cursor
// it starts from now and gives one; after a reset likewise. Errors: bad_request (the cursor).
func (c *Chat) Sync(ctx context.Context, u id.User, cursor string, limit int) (SyncPage, error) {
	if limit <= 0 {
		limit = syncLimit
	}
	page := SyncPage{Changes: []SyncChange{}}
	tag := c.runs.current()
	var got Catchup
	var ms []Membership
	err := c.db.Read(ctx, func(tx *sqldb.Tx) error {
		// All that is read here is of one moment.
		to, err := selectHeads(ctx, tx)
		if err != nil {
			return err
		}
		if ms, err = listMemberships(ctx, tx, u); err != nil {
			return err
		}
		if cursor != "" {
			if got, err = c.catchUp(ctx, tx, u, cursor, to, min(limit, syncLimitMax)); err != nil {
				return err
			}
		}
		if cursor == "" || got.Reset {
			got.Next = Positions{}
			for _, m := range ms {
				if b := m.Conversation.Bucket(); m.Member.Active {
					got.Next[b] = to[b]
				}
			}
		}
		return nil
	})
	if err != nil {
		return SyncPage{}, fmt.Errorf("chat: sync: %w", err)
	}
	page.Cursor, page.HasMore, page.Reset = cursorOf(tag, got.Next), got.More, got.Reset
	for _, e := range got.Entries {
		switch e.Kind {
		case EntryRemoved, EntryJoined:
			m := e.Member
			page.Changes = append(page.Changes, SyncChange{Kind: "membership", Membership: &SyncMembership{
				e.conversation, u, m.Role, m.Active, m.JoinedAt, m.DeliveredSeq, m.ReadSeq}})
		}
		if e.Conversation != nil {
			page.Changes = append(page.Changes, SyncChange{Kind: "conversation", Conversation: e.Conversation})
		}
		if e.Message != nil {
			page.Changes = append(page.Changes, SyncChange{Kind: "message", Message: e.Message})
		}
	}
	return page, nil
}

// readLog reads the commits of one bucket from position n on, at most so many positions, as one.
func (c *Chat) readLog(ctx context.Context, b id.Bucket, n, most int64) (Commit, error) {
	commit := Commit{Bucket: b, Prev: n}
	err := c.db.Read(ctx, func(tx *sqldb.Tx) error {
		var head int64
		if _, err := tx.One(ctx, []any{&head}, `SELECT last_pos FROM buckets WHERE bucket = $1`, int64(b)); err != nil {
			return err
		}
		commit.Pos = max(n, min(head, n+most))
		messages, err := selectBucket(ctx, tx, b, n, commit.Pos)
		if err != nil {
			return err
		}
		for i := range messages {
			m := &messages[i]
			e, ok := messageEntry(m, n, commit.Pos)
			if !ok {
				continue
			}
			ch := m.change(MessageNew)
			ch.Pos = e.Pos
			switch {
			case e.Kind == EntryMessageNew: // a tombstone too: its row says so
			case m.IsDeleted:
				ch.Kind = MessageDeleted
			default:
				ch.Kind = MessageUpdated
			}
			commit.Changes = append(commit.Changes, ch)
		}
		members, err := c.readMemberships(ctx, tx, b, n, commit.Pos)
		commit.Changes = append(commit.Changes, members...)
		return err
	})
	if err != nil {
		return Commit{}, fmt.Errorf("chat: read log: %w", err)
	}
	slices.SortStableFunc(commit.Changes, func(a, b Change) int { return int(min(max(a.Pos-b.Pos, -1), 1)) })
	return commit, nil
}

// readMemberships reads the conversations made, and the memberships begun and ended, in (n, m] of a bucket.
func (c *Chat) readMemberships(ctx context.Context, tx *sqldb.Tx, b id.Bucket, n, m int64) ([]Change, error) {
	conversations, err := selectMoved(ctx, tx, b, n)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for i := range conversations {
		cv := &conversations[i]
		members, err := selectMemberChanges(ctx, tx, cv.ID, n, m)
		if err != nil {
			return nil, err
		}
		if len(members) == 0 {
			continue
		}
		row, err := c.conversationRow(ctx, tx, cv)
		if err != nil {
			return nil, err
		}
		for len(members) > 0 { // sorted by position: those of one transaction together
			pos, active := members[0].ChangedPos, members[0].Active
			end := slices.IndexFunc(members, func(m Member) bool { return m.ChangedPos != pos })
			if end < 0 {
				end = len(members)
			}
			ch := Change{Kind: MemberRemoved, Pos: pos, Conversation: cv.ID, Members: members[:end]}
			if active {
				ch.Kind, ch.Row = MemberAdded, row
				if pos == cv.made {
					ch.Kind = ConversationAdded
				}
			}
			changes = append(changes, ch)
			members = members[end:]
		}
	}
	return changes, nil
}

// readHeads reads the last position of every bucket.
func (c *Chat) readHeads(ctx context.Context) (heads Positions, err error) {
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		heads, err = selectHeads(ctx, tx)
		return err
	})
	return heads, err
}
