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

	lastSeq    int64 // of the conversation's last message
	changedPos int64 // of the conversation's settings
	lastPos    int64 // of anything in it
}

// Memberships are all of a user's, the ended ones too, in the order of their buckets. Bounded by the
// conversations he was ever in.
func (c *Chat) Memberships(ctx context.Context, u id.User) (ms []Membership, err error) {
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		places, err := placesOf(ctx, tx, u)
		if err == nil {
			ms, err = listMemberships(ctx, tx, u, places, nil)
		}
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
	places, err := placesOf(ctx, tx, u)
	if err != nil {
		return Catchup{}, err
	}
	places = slices.DeleteFunc(places, func(cid id.Conversation) bool { return from[cid.Bucket()] >= to[cid.Bucket()] })
	// The memberships are read no earlier than to: one that ended by then is known to have ended.
	ms, err := listMemberships(ctx, tx, u, places, from)
	if err != nil {
		return Catchup{}, err
	}
	out, err := c.pages(ctx, tx, u, ms, from, to, limit)
	if err == nil && !out.More {
		for _, cid := range places { // in whose buckets nothing more concerns u
			out.Next[cid.Bucket()] = to[cid.Bucket()]
		}
	}
	return out, err
}

const (
	// streamsAtOnce is how many conversations are read together, but for those of one bucket: on PostgreSQL one round trip.
	streamsAtOnce = 16
	// pageBytesMax bounds the messages of a page, but for one of each conversation that is read together.
	pageBytesMax = 1 << 20
)

// pages reads bucket after bucket until limit entries, or pageBytesMax, are there.
func (c *Chat) pages(ctx context.Context, tx *sqldb.Tx, u id.User, ms []Membership, from, to Positions, limit int) (Catchup, error) {
	out := Catchup{Next: maps.Clone(from)}
	if out.Next == nil {
		out.Next = Positions{}
	}
	budget := pageBytesMax
	for len(ms) > 0 {
		if len(out.Entries) >= limit || budget <= 0 {
			out.More = true
			break
		}
		// Whole buckets, as many as may be needed to fill the page: a conversation has no more that is new than its bucket moved.
		end, more := 1, ms[0].lastPos-from[ms[0].Conversation.Bucket()]
		for end < len(ms) {
			b := ms[end].Conversation.Bucket()
			if b != ms[end-1].Conversation.Bucket() && (end >= streamsAtOnce || more >= int64(limit-len(out.Entries))) {
				break
			}
			more += ms[end].lastPos - from[b]
			end++
		}
		reads := make([]*reading, 0, end)
		for i := range ms[:end] {
			b := ms[i].Conversation.Bucket()
			r := &reading{user: u, of: &ms[i], n: from[b], m: to[b], limit: limit - len(out.Entries), budget: &budget}
			r.queue(tx)
			reads = append(reads, r)
		}
		ms = ms[end:]
		if err := tx.Flush(ctx); err != nil {
			return out, fmt.Errorf("read pages: %w", err)
		}
		for len(reads) > 0 {
			b := reads[0].of.Conversation.Bucket()
			if len(out.Entries) >= limit {
				out.More = true
				break
			}
			var streams []stream
			for len(reads) > 0 && reads[0].of.Conversation.Bucket() == b {
				streams = append(streams, reads[0].streams()...)
				reads = reads[1:]
			}
			page, upTo := mergePage(streams, to[b], limit-len(out.Entries))
			out.Entries = append(out.Entries, page...)
			out.Next[b] = upTo
			out.More = out.More || upTo < to[b]
		}
	}
	return out, nil
}

// reading is what one conversation has in (n, m] of its bucket's log for a member, on its way from the database.
type reading struct {
	user   id.User
	of     *Membership
	n, m   int64
	limit  int  // entries of each stream
	budget *int // bytes that all readings of the page may still take

	conversation Conversation // if it is shown itself
	member       Member
	newest       []Message // of one that was joined, the newest first
	made         messageRun
	changed      messageRun
}

// messageRun are messages in the order of a stream; cut says that there are more.
type messageRun struct {
	messages []Message
	cut      bool
}

// base is the position behind which the conversation is shown as to every member: that of the joining, if that lies in
// the page, or where the page begins.
func (r *reading) base() int64 {
	if p := r.of.Member.JoinedPos; p > r.n {
		return p
	}
	return r.n
}

// shown tells whether the page has what members see. Otherwise the membership ended in it, or is for a later page: as
// joined, or, when it began in the page and ended behind it, as ended.
func (r *reading) shown() bool {
	m := &r.of.Member
	return m.MemberAt(r.m) && (m.Active || m.JoinedPos <= r.n)
}

// queue asks for what has to be read.
func (r *reading) queue(tx *sqldb.Tx) {
	base, bucket, cid := r.base(), int64(r.of.Conversation.Bucket()), string(r.of.Conversation)
	if !r.shown() {
		return
	}
	if base > r.n || r.settled(base) {
		queueConversation(tx, r.of.Conversation, r.user, &r.conversation, &r.member)
	}
	if base > r.n {
		tx.QueueEach(func(row sqldb.Row) error {
			m, err := scanMessage(row)
			r.newest = append(r.newest, m)
			return err
		}, selectNewest, bucket, cid, base, newestPage)
	}
	if r.of.lastPos > base {
		tx.QueueEach(r.made.scan(r), selectMade, bucket, cid, base, r.m, r.limit+1, r.of.firstBehind(base))
		tx.QueueEach(r.changed.scan(r), selectChanged, bucket, cid, base, r.m, r.limit+1)
	}
}

// settled tells whether the conversation's own row changed in the page, and can still be shown to the member.
func (r *reading) settled(base int64) bool {
	return r.of.Member.Active && r.of.changedPos > base && r.of.changedPos <= r.m
}

// scan takes messages until there are as many, or as large ones, as the page may hold.
func (run *messageRun) scan(r *reading) func(sqldb.Row) error {
	return func(row sqldb.Row) error {
		if run.cut = run.cut || len(run.messages) == r.limit || len(run.messages) > 0 && *r.budget <= 0; run.cut {
			return nil
		}
		m, err := scanMessage(row)
		run.messages = append(run.messages, m)
		*r.budget -= m.bytes()
		return err
	}
}

// streams are what was read, in the order of the log.
func (r *reading) streams() (all []stream) {
	ms, base := r.of, r.base()
	switch {
	case !r.shown():
		if pos := ms.Member.ChangedPos; !ms.Member.Active && pos > r.n && pos <= r.m {
			all = append(all, stream{entries: []Entry{{Kind: EntryRemoved, Pos: pos, conversation: ms.Conversation, Member: &ms.Member}}})
		}
		return all
	case base > r.n:
		joined := stream{entries: []Entry{r.itself(EntryJoined, base)}}
		for i := range slices.Backward(r.newest) {
			seen := r.newest[i].seenBy(r.user, ms.Member.Role)
			joined.entries = append(joined.entries, Entry{Kind: EntryMessageNew, Pos: base, Message: &seen, conversation: ms.Conversation})
		}
		all = append(all, joined)
	}
	if r.settled(base) {
		all = append(all, stream{entries: []Entry{r.itself(EntryConversation, ms.changedPos)}})
	}
	for _, run := range []messageRun{r.made, r.changed} {
		s := stream{cut: run.cut}
		for i := range run.messages {
			seen := run.messages[i].seenBy(r.user, ms.Member.Role)
			if e, ok := messageEntry(&seen, base, r.m); ok {
				s.entries = append(s.entries, e)
			}
		}
		all = append(all, s)
	}
	return all
}

func (r *reading) itself(kind EntryKind, pos int64) Entry {
	return Entry{Kind: kind, Pos: pos, Conversation: &r.conversation, Member: &r.member, conversation: r.of.Conversation}
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
	err := c.db.Read(ctx, func(tx *sqldb.Tx) error {
		// All that is read here is of one moment.
		to, err := selectHeads(ctx, tx)
		if err != nil {
			return err
		}
		if cursor != "" {
			if got, err = c.catchUp(ctx, tx, u, cursor, to, min(limit, syncLimitMax)); err != nil {
				return err
			}
		}
		if cursor == "" || got.Reset {
			places, err := placesOf(ctx, tx, u)
			if err != nil {
				return err
			}
			got.Next = Positions{}
			for _, cid := range places {
				got.Next[cid.Bucket()] = to[cid.Bucket()]
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
			changed := m.change(MessageUpdated)
			if m.IsDeleted {
				changed.Kind = MessageDeleted
			}
			if made := m.made; made > n { // a tombstone too: its row says so
				ch := m.change(MessageNew)
				ch.Pos = made
				commit.Changes = append(commit.Changes, ch)
			}
			// Who has got the message already, from a node that was ahead, gets its change by this alone.
			if changed.Pos > m.made && changed.Pos <= commit.Pos {
				commit.Changes = append(commit.Changes, changed)
			}
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
	conversations, err := selectSettled(ctx, tx, b, n)
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
