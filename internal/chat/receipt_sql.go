package chat

import (
	"context"
	"fmt"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// A receipt is a pair of cursors of its member, so a message costs no row for each of the others: to them it is
// "sent" because it is beyond their cursors. What is written here has been advanced under the lock of the bucket.
var saveCursors = sqldb.NewMulti(`UPDATE members SET delivered_seq = v.column4, read_seq = v.column5 FROM {rows} AS v
	WHERE members.bucket = v.column1 AND members.conversation_id = v.column2 AND members.user_id = v.column3`,
	"BIGINT", "TEXT", "TEXT", "BIGINT", "BIGINT")

func (r Receipt) cursorRow() []any {
	return []any{int64(r.ConversationID.Bucket()), string(r.ConversationID), string(r.UserID), r.DeliveredSeq, r.ReadSeq}
}

var insertRanges = sqldb.NewMulti(`INSERT INTO receipts (bucket, conversation_id, user_id, kind, from_seq, to_seq, at_ms)
	SELECT column1, column2, column3, column4, column5, column6, column7 FROM {rows} AS v WHERE column1 IS NOT NULL`,
	"BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT")

func (r Receipt) rangeRow(kind Status, from, to int64, at wire.Time) []any {
	return []any{int64(r.ConversationID.Bucket()), string(r.ConversationID), string(r.UserID), string(kind), from, to, int64(at)}
}

// passSystemMessage moves the cursors of a system message's sender over it if nothing else is before them, so that they stay
// behind a message of his own only where another's is on the way, and its range covers both.
const passSystemMessage = `UPDATE members SET delivered_seq = $4, read_seq = CASE WHEN read_seq = $5 THEN $4 ELSE read_seq END
	WHERE bucket = $1 AND conversation_id = $2 AND user_id = $3 AND active AND delivered_seq = $5`

var insertPastMembers = sqldb.NewMulti(`INSERT INTO past_members (bucket, conversation_id, user_id, joined_seq, left_seq, delivered_seq, read_seq)
	SELECT column1, column2, column3, column4, column5, column6, column7 FROM {rows} AS v WHERE column1 IS NOT NULL`,
	"BIGINT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT")

// pastRows appends a membership of cv that ends now, unless nothing was sent in it.
func pastRows(rows [][]any, cv *Conversation, m Member) [][]any {
	if m.JoinedSeq == cv.LastSeq {
		return rows
	}
	return append(rows, []any{int64(cv.ID.Bucket()), string(cv.ID), string(m.UserID), m.JoinedSeq, cv.LastSeq, m.DeliveredSeq, m.ReadSeq})
}

// Where a member stands, found by unique keys: by the conversation, or by a message in it.
const placeColumns = `p.conversation_id, p.delivered_seq, p.read_seq, c.last_seq, c.last_message_ms`

var (
	selectPlaces = sqldb.NewMulti(`SELECT p.user_id, '', 0, `+placeColumns+` FROM {rows} AS v
		JOIN members p ON p.bucket = v.column1 AND p.conversation_id = v.column2 AND p.user_id = v.column3 AND p.active
		JOIN conversations c ON c.bucket = v.column1 AND c.id = v.column2`,
		"BIGINT", "TEXT", "TEXT")
	selectMessagePlaces = sqldb.NewMulti(`SELECT p.user_id, m.id, m.seq, `+placeColumns+` FROM {rows} AS v
		JOIN messages m ON m.bucket = v.column1 AND m.id = v.column2
		JOIN members p ON p.bucket = v.column1 AND p.conversation_id = m.conversation_id AND p.user_id = v.column3 AND p.active
		JOIN conversations c ON c.bucket = v.column1 AND c.id = m.conversation_id`,
		"BIGINT", "TEXT", "TEXT")
)

// markedPlace is the place that a mark is about, and the seq of its message, if it names one.
type markedPlace struct {
	*place
	seq int64
}

// loadPlaces finds the places of marks; marks of a member in one conversation share theirs. A mark of one who is no member
// has none.
func loadPlaces(ctx context.Context, l *logTx, items []*marking) (map[mark]markedPlace, error) {
	var byConversation, byMessage [][]any
	asked := make(map[mark]bool, len(items))
	for _, m := range items {
		switch {
		case asked[m.mark]:
		case m.message != "":
			byMessage = append(byMessage, []any{int64(m.bucket()), string(m.message), string(m.user)})
		default:
			byConversation = append(byConversation, []any{int64(m.bucket()), string(m.conv), string(m.user)})
		}
		asked[m.mark] = true
	}
	marked := make(map[mark]markedPlace, len(items))
	places := make(map[memberKey]*place, len(items))
	scan := func(row sqldb.Row) error {
		var at markedPlace
		var p place
		m := mark{}
		r := &p.before
		if err := row.Scan(&m.user, &m.message, &at.seq, &r.ConversationID, &r.DeliveredSeq, &r.ReadSeq, &p.lastSeq, &p.lastAt); err != nil {
			return err
		}
		r.UserID = m.user
		p.after = p.before
		key := memberKey{r.ConversationID, r.UserID}
		if places[key] == nil {
			places[key] = &p
		}
		if m.message == "" {
			m.conv = r.ConversationID
		}
		at.place = places[key]
		marked[m] = at
		return nil
	}
	l.Queue(selectPlaces, byConversation, scan)
	l.Queue(selectMessagePlaces, byMessage, scan)
	if err := l.Flush(ctx); err != nil {
		return nil, fmt.Errorf("load places: %w", err)
	}
	return marked, nil
}

// sentMessage is what the receipts of a message depend on.
type sentMessage struct {
	conv   id.Conversation
	seq    int64
	sender id.User
}

const selectSentMessage = `SELECT m.conversation_id, m.seq, m.sender_id FROM messages m
	JOIN members p ON p.bucket = m.bucket AND p.conversation_id = m.conversation_id AND p.user_id = $3 AND p.active
	WHERE m.bucket = $1 AND m.id = $2`

// loadSent is served by unique keys. Errors: errMessageNotFound, the same by the same path whether there is no such
// message or u is no member of its conversation.
func loadSent(ctx context.Context, tx *sqldb.Tx, mid id.Message, u id.User) (m sentMessage, err error) {
	found, err := tx.One(ctx, []any{&m.conv, &m.seq, &m.sender}, selectSentMessage, int64(mid.Bucket()), string(mid), string(u))
	if err != nil {
		return m, fmt.Errorf("load sent: %w", err)
	}
	if !found {
		return m, errMessageNotFound
	}
	return m, nil
}

func (m sentMessage) args(more ...any) []any {
	return append([]any{int64(m.conv.Bucket()), string(m.conv), m.seq, string(m.sender)}, more...)
}

// concerned are those whom the message $3 of $4 concerns, each once, since memberships of a user do not overlap; further
// conditions may follow either part. Served by the primary keys, over the memberships of one conversation.
func concerned(further string) string {
	return `SELECT user_id, delivered_seq, read_seq FROM members
		WHERE bucket = $1 AND conversation_id = $2 AND active AND joined_seq < $3 AND user_id <> $4` + further + `
		UNION ALL SELECT user_id, delivered_seq, read_seq FROM past_members
		WHERE bucket = $1 AND conversation_id = $2 AND joined_seq < $3 AND left_seq >= $3 AND user_id <> $4` + further
}

// A cursor has passed a message if it is not before it: whoever was a member then began below it.
var selectCounts = `SELECT COUNT(*) FILTER (WHERE read_seq >= $3), COUNT(*) FILTER (WHERE delivered_seq >= $3), COUNT(*) FROM (` + concerned("") + `) AS concerned`

func countReceipts(ctx context.Context, tx *sqldb.Tx, m sentMessage) (n ReceiptCounts, err error) {
	if _, err = tx.One(ctx, []any{&n.Read, &n.Delivered, &n.Sent}, selectCounts, m.args()...); err != nil {
		return n, fmt.Errorf("count receipts: %w", err)
	}
	return n, nil
}

// reached is when a cursor passed the message: the time of the first range that reaches its seq, if it holds it.
func reached(kind Status) string {
	return `(SELECT CASE WHEN r.from_seq <= $3 THEN r.at_ms END FROM receipts r
		WHERE r.bucket = $1 AND r.conversation_id = $2 AND r.user_id = page.user_id AND r.kind = '` + string(kind) + `' AND r.to_seq >= $3
		ORDER BY r.to_seq LIMIT 1)`
}

// Both parts come in the order of their keys, and are merged as far as the page goes.
var selectReaders = `SELECT user_id, delivered_seq, read_seq, ` + reached(Delivered) + `, ` + reached(Read) + `
	FROM (` + concerned(" AND user_id > $5") + ` ORDER BY user_id LIMIT $6) AS page ORDER BY user_id`

func listReaders(ctx context.Context, tx *sqldb.Tx, m sentMessage, after id.User, limit int) ([]Reader, error) {
	readers := make([]Reader, 0, limit)
	err := tx.Each(ctx, func(row sqldb.Row) error {
		r := Reader{Status: Sent}
		var delivered, read int64
		if err := row.Scan(&r.UserID, &delivered, &read, &r.DeliveredAt, &r.ReadAt); err != nil {
			return err
		}
		switch {
		case read >= m.seq:
			r.Status = Read
		case delivered >= m.seq:
			r.Status = Delivered
		}
		if r.DeliveredAt == nil {
			r.DeliveredAt = r.ReadAt // reading delivers
		}
		readers = append(readers, r)
		return nil
	}, selectReaders, m.args(string(after), limit)...)
	if err != nil {
		return nil, fmt.Errorf("list readers: %w", err)
	}
	return readers, nil
}
