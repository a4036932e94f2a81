package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// Kind says what happened to the conversation that a Change belongs to.
type Kind string

// The kinds of a Change.
const (
	MessageNew        Kind = "message-new"
	MessageUpdated    Kind = "message-updated"
	MessageDeleted    Kind = "message-deleted"
	ConversationAdded Kind = "conversation-added" // made; Members are all its first members
	MemberAdded       Kind = "member-added"
	MemberRemoved     Kind = "member-removed"
)

// Change is one thing at one position of a bucket's log, as the nodes tell it to each other. What it
// points to is shared between goroutines and is not written after the commit.
type Change struct {
	Kind         Kind            `json:"k"`
	Pos          int64           `json:"p"`
	Conversation id.Conversation `json:"c"`
	Message      *MessageRef     `json:"m,omitempty"` // of the Message kinds
	Row          json.RawMessage `json:"r,omitempty"` // the message's or the conversation's row, as every member may see it
	Members      []Member        `json:"u,omitempty"` // of ConversationAdded and the Member kinds
	By           id.User         `json:"b,omitempty"` // of the Member kinds: who did it
}

// MessageRef is what must be known of a message beside its row.
type MessageRef struct {
	ID              id.Message `json:"i"`
	Seq             int64      `json:"s"`
	SenderID        id.User    `json:"f"`
	ClientMessageID string     `json:"x,omitempty"`
	DeletedAt       *wire.Time `json:"d,omitempty"`
}

// Commit is what became of one bucket's log in one transaction, or in several that were read from SQL
// together: all that happened at the positions Prev+1 to Pos.
type Commit struct {
	Bucket  id.Bucket `json:"b"`
	Prev    int64     `json:"n"`
	Pos     int64     `json:"m"`
	Changes []Change  `json:"c"` // in the order of their positions

	// Server is where it was committed, for a node that still follows another server.
	Server string `json:"w,omitempty"`
}

// logTx is a transaction that holds the lock of some buckets, and gives out their positions.
type logTx struct {
	*sqldb.Tx
	now   wire.Time
	heads []Commit // sorted by bucket
	// found says that something is answered which an earlier transaction wrote, maybe one whose commit is in doubt. So this
	// one writes the heads although they have not moved: its commit then waits for all that stands before it in
	// PostgreSQL's log, on a synchronous standby too.
	found bool
}

// at returns the head of a bucket that the transaction holds.
func (l *logTx) at(b id.Bucket) *Commit {
	i, ok := slices.BinarySearchFunc(l.heads, b, func(h Commit, b id.Bucket) int { return int(h.Bucket) - int(b) })
	if !ok {
		panic(fmt.Sprintf("chat: bucket %d is not locked by this transaction", b))
	}
	return &l.heads[i]
}

// next takes the next position of a bucket.
func (l *logTx) next(b id.Bucket) int64 {
	h := l.at(b)
	h.Pos++
	return h.Pos
}

// tell has ch told once the transaction is durable. Its position must have been taken with next.
func (l *logTx) tell(ch Change) {
	h := l.at(ch.Conversation.Bucket())
	h.Changes = append(h.Changes, ch)
}

// The lock comes in a statement of its own: reads in the same one would see the time before the wait.
// The order of the rows keeps two transactions from waiting for each other. On SQLite whoever writes is alone.
var lockBuckets = map[sqldb.Dialect]*sqldb.Multi{
	sqldb.SQLite:   sqldb.NewMulti(`SELECT bucket, last_pos FROM buckets WHERE bucket IN (SELECT column1 FROM {rows} AS v) ORDER BY bucket`, "BIGINT"),
	sqldb.Postgres: sqldb.NewMulti(`SELECT bucket, last_pos FROM buckets WHERE bucket IN (SELECT column1 FROM {rows} AS v) ORDER BY bucket FOR UPDATE`, "BIGINT"),
}

var saveHeads = sqldb.NewMulti(`UPDATE buckets SET last_pos = v.column2 FROM {rows} AS v WHERE buckets.bucket = v.column1`, "BIGINT", "BIGINT")

// change runs f in a transaction that holds the locks of buckets, commits what f wrote together with
// the new heads, and returns what is to be told, bucket by bucket.
//
// The statement that locks is queued: it goes with the first that f runs, which must come before f asks for a position or
// the time.
func (c *Chat) change(ctx context.Context, urgent bool, buckets []id.Bucket, f func(*logTx) error) ([]Commit, error) {
	slices.Sort(buckets)
	buckets = slices.Compact(buckets)
	run := c.db.InTx
	if urgent {
		run = c.db.InTxUrgent
	}
	var commits []Commit
	err := run(ctx, func(tx *sqldb.Tx) error {
		l := &logTx{Tx: tx, heads: make([]Commit, 0, len(buckets))}
		rows := make([][]any, len(buckets))
		for i, b := range buckets {
			rows[i] = []any{int64(b)}
		}
		tx.Queue(lockBuckets[tx.Dialect], rows, func(r sqldb.Row) error {
			var h Commit
			if err := r.Scan(&h.Bucket, &h.Prev); err != nil {
				return err
			}
			h.Pos = h.Prev
			l.heads = append(l.heads, h)
			l.now = wire.At(c.now()) // after the wait for the lock
			return nil
		})
		if err := f(l); err != nil {
			return err
		}
		rows = rows[:0]
		for _, h := range l.heads {
			if h.Pos > h.Prev {
				commits = append(commits, h)
			}
			if h.Pos > h.Prev || l.found {
				rows = append(rows, []any{int64(h.Bucket), h.Pos})
			}
		}
		tx.Queue(saveHeads, rows, nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return commits, nil
}

// changeAndTell is change for a single conversation's bucket, with the telling.
func (c *Chat) changeAndTell(ctx context.Context, b id.Bucket, f func(*logTx) error) error {
	commits, err := c.change(ctx, false, []id.Bucket{b}, func(l *logTx) error {
		if err := l.Flush(ctx); err != nil {
			return fmt.Errorf("chat: lock: %w", err)
		}
		return f(l)
	})
	if err != nil {
		return err
	}
	c.tell(commits)
	return nil
}

// logSubject is where the nodes tell each other what was committed in a bucket.
func logSubject(b id.Bucket) string { return "parley.log." + strconv.Itoa(int(b)) }

// The tutorial's subjects, for other programs on the same NATS.
var publicSubjects = map[Kind]string{
	MessageNew:     "chat.message.new",
	MessageUpdated: "chat.message.updated",
	MessageDeleted: "chat.message.deleted",
}

// tell passes on what was committed: to this node's feed, and where other nodes or programs may be
// listening, to them. It cannot fail: what is lost on the way is found in the log. So is what is committed on a server that
// has just been met, until it is known what of before is there.
func (c *Chat) tell(commits []Commit) {
	server, settled := c.runs.at()
	if !settled {
		return
	}
	for i := range commits {
		commits[i].Server = server
		c.Feed.offer(commits[i])
	}
	if !c.o.Shared {
		return
	}
	for _, commit := range commits {
		data, err := json.Marshal(commit)
		if err != nil {
			panic("chat: a commit cannot be encoded: " + err.Error())
		}
		c.hint(logSubject(commit.Bucket), data)
		if h, any := membersOf(commit); any {
			c.Feed.members(h)
			if data, err = json.Marshal(h); err != nil {
				panic("chat: a hint cannot be encoded: " + err.Error())
			}
			c.hint(membersSubject, data)
		}
		for _, ch := range commit.Changes {
			if subject := publicSubjects[ch.Kind]; subject != "" {
				c.hint(subject, publicMessage(ch, c.now()))
			}
		}
	}
}

// hint tells the bus; what it refuses it has counted.
func (c *Chat) hint(subject string, data []byte) {
	if err := c.bus.Tell(subject, data); err != nil {
		c.log.Debug("a hint was lost", "subject", subject, "err", err)
	}
}
