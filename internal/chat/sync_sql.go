package chat

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"parley/internal/id"
	"parley/internal/sqldb"
)

// selectHeads reads 256 rows.
func selectHeads(ctx context.Context, tx *sqldb.Tx) (Positions, error) {
	heads := make(Positions, id.Buckets)
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		var b id.Bucket
		var pos int64
		err := rows.Scan(&b, &pos)
		heads[b] = pos
		return err
	}, `SELECT bucket, last_pos FROM buckets`)
	if err != nil {
		return nil, fmt.Errorf("select heads: %w", err)
	}
	return heads, nil
}

// placesOf are the conversations that u has, or had, a membership of, in the order of their buckets: the one read that
// is keyed by the user, by the primary key of user_conversations. All else is read by bucket.
func placesOf(ctx context.Context, tx *sqldb.Tx, u id.User) ([]id.Conversation, error) {
	var places []id.Conversation
	err := tx.Each(ctx, func(row sqldb.Row) error {
		var cid id.Conversation
		err := row.Scan(&cid)
		places = append(places, cid)
		return err
	}, `SELECT conversation_id FROM user_conversations WHERE user_id = $1 ORDER BY bucket, conversation_id`, string(u))
	if err != nil {
		return nil, fmt.Errorf("places of a user: %w", err)
	}
	return places, nil
}

// Of the places given, those in which something happened behind a position, by the primary keys. Membership is looked at
// in those alone: its changes move last_pos too.
var selectMoved = sqldb.NewMulti(`SELECT c.id, c.last_seq, c.changed_pos, c.last_pos, `+memberColumns+` FROM {rows} AS v
	CROSS JOIN conversations c CROSS JOIN members m
	WHERE c.bucket = v.column1 AND c.id = v.column2 AND c.last_pos > v.column3
	AND m.bucket = v.column1 AND m.conversation_id = v.column2 AND m.user_id = v.column4`,
	"BIGINT", "TEXT", "BIGINT", "TEXT")

// listMemberships reads u's memberships in those of places, which are sorted, in which something happened behind from.
func listMemberships(ctx context.Context, tx *sqldb.Tx, u id.User, places []id.Conversation, from Positions) ([]Membership, error) {
	rows := make([][]any, len(places))
	for i, cid := range places {
		rows[i] = []any{int64(cid.Bucket()), string(cid), from[cid.Bucket()], string(u)}
	}
	ms := make([]Membership, 0, len(places))
	err := tx.EachMulti(ctx, func(row sqldb.Row) error {
		var m Membership
		err := row.Scan(append([]any{&m.Conversation, &m.lastSeq, &m.changedPos, &m.lastPos}, m.Member.scan()...)...)
		ms = append(ms, m)
		return err
	}, selectMoved, rows)
	if err != nil {
		return nil, fmt.Errorf("list memberships: %w", err)
	}
	slices.SortFunc(ms, func(a, b Membership) int {
		return cmp.Or(cmp.Compare(a.Conversation.Bucket(), b.Conversation.Bucket()), cmp.Compare(a.Conversation, b.Conversation))
	})
	return ms, nil
}

// What a conversation has in ($3, $4] of its bucket's log. What was made there begins at the first seq whose
// pos lies behind $3: since pos grows with seq, which has no holes, it is found by halves, each step by
// UNIQUE (bucket, conversation_id, seq), from $6 on. What was changed there has the index messages_log_changed.
const (
	selectMade = `WITH RECURSIVE halves (low, high) AS (
			SELECT CAST($6 AS BIGINT), c.last_seq + 1 FROM conversations c WHERE c.bucket = $1 AND c.id = $2
			UNION ALL
			SELECT CASE WHEN middle.pos > $3 THEN low ELSE middle.seq + 1 END, CASE WHEN middle.pos > $3 THEN middle.seq ELSE high END
			FROM halves JOIN messages middle ON middle.bucket = $1 AND middle.conversation_id = $2 AND middle.seq = (low + high) / 2
			WHERE low < high
		)
		SELECT ` + messageColumns + ` FROM messages m
		WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.seq >= (SELECT low FROM halves WHERE low = high) AND m.pos <= $4 ORDER BY m.seq LIMIT $5`
	selectChanged = `SELECT ` + messageColumns + ` FROM messages m
		WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.changed_pos IS NOT NULL AND m.changed_pos > $3 AND m.changed_pos <= $4 AND m.pos <= $3
		ORDER BY m.changed_pos LIMIT $5`
)

// firstBehind is a seq at or before the first message of the conversation behind position n: each of those has a
// position of its own.
func (m *Membership) firstBehind(n int64) int64 { return max(1, m.lastSeq+1-(m.lastPos-n)) }

func collectMessages(ctx context.Context, tx *sqldb.Tx, query string, args ...any) ([]Message, error) {
	var messages []Message
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		m, err := scanMessage(rows)
		messages = append(messages, m)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("select messages: %w", err)
	}
	return messages, nil
}

// selectNewest are the newest messages up to position $3 that are not deleted, the newest first, by
// UNIQUE (bucket, conversation_id, seq) from the end; what lies beyond $3 is passed over.
const selectNewest = `SELECT ` + messageColumns + ` FROM messages m
	WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.pos <= $3 AND NOT m.is_deleted ORDER BY m.seq DESC LIMIT $4`

// selectBucket is what a whole bucket has in (n, m], by the primary key and the index messages_changed.
func selectBucket(ctx context.Context, tx *sqldb.Tx, b id.Bucket, n, m int64) ([]Message, error) {
	return collectMessages(ctx, tx, `SELECT `+messageColumns+` FROM messages m WHERE m.bucket = $1 AND m.pos > $2 AND m.pos <= $3
		UNION ALL SELECT `+messageColumns+` FROM messages m WHERE m.bucket = $1 AND m.changed_pos IS NOT NULL AND m.changed_pos > $2 AND m.changed_pos <= $3 AND m.pos <= $2`,
		int64(b), n, m)
}

// selectSettled reads the conversations of a bucket whose members or settings changed behind n, by conversations_changed.
func selectSettled(ctx context.Context, tx *sqldb.Tx, b id.Bucket, n int64) ([]Conversation, error) {
	var moved []Conversation
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		cv, err := scanConversation(rows)
		moved = append(moved, cv)
		return err
	}, `SELECT `+conversationColumns+` FROM conversations c WHERE c.bucket = $1 AND c.changed_pos > $2`, int64(b), n)
	if err != nil {
		return nil, fmt.Errorf("select settled: %w", err)
	}
	return moved, nil
}

// selectMemberChanges reads the memberships of a conversation that began or ended in (n, m]; bounded by its members.
func selectMemberChanges(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, n, m int64) ([]Member, error) {
	return selectMemberPage(ctx, tx, `SELECT `+memberColumns+` FROM members m WHERE m.bucket = $1 AND m.conversation_id = $2
		AND m.changed_pos > $3 AND m.changed_pos <= $4 ORDER BY m.changed_pos`, int64(cid.Bucket()), string(cid), n, m)
}

// Whose memberships changed behind a position of a bucket, by the index conversations_changed and the primary key of
// members. There is no upper bound: where a change up to some head was followed by another one, only that shows.
var selectMembersBehind = sqldb.NewMulti(`SELECT m.bucket, m.user_id FROM {rows} AS v CROSS JOIN conversations c CROSS JOIN members m
	WHERE c.bucket = v.column1 AND c.changed_pos > v.column2
	AND m.bucket = v.column1 AND m.conversation_id = c.id AND m.changed_pos > v.column2`, "BIGINT", "BIGINT")

// eachMemberBehind calls f with every user whose membership changed behind the place of one of buckets; bounded by the
// members of the conversations that changed there.
func eachMemberBehind(ctx context.Context, tx *sqldb.Tx, buckets, places Positions, f func(id.Bucket, id.User)) error {
	if len(buckets) == 0 {
		return nil
	}
	rows := make([][]any, 0, len(places))
	for b, place := range places {
		if _, ok := buckets[b]; ok {
			rows = append(rows, []any{int64(b), place})
		}
	}
	err := tx.EachMulti(ctx, func(row sqldb.Row) error {
		var b id.Bucket
		var u id.User
		err := row.Scan(&b, &u)
		if err == nil {
			f(b, u)
		}
		return err
	}, selectMembersBehind, rows)
	if err != nil {
		return fmt.Errorf("members behind a place: %w", err)
	}
	return nil
}
