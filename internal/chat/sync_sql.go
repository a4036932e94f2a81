package chat

import (
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

// listMemberships is served by the primary keys, from user_conversations on.
func listMemberships(ctx context.Context, tx *sqldb.Tx, u id.User) ([]Membership, error) {
	var ms []Membership
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		var m Membership
		err := rows.Scan(append([]any{&m.Conversation, &m.changedPos, &m.lastPos}, m.Member.scan()...)...)
		ms = append(ms, m)
		return err
	}, `SELECT c.id, c.changed_pos, c.last_pos, `+memberColumns+` FROM user_conversations uc
		JOIN members m ON m.bucket = uc.bucket AND m.conversation_id = uc.conversation_id AND m.user_id = uc.user_id
		JOIN conversations c ON c.bucket = uc.bucket AND c.id = uc.conversation_id
		WHERE uc.user_id = $1 ORDER BY uc.bucket, uc.conversation_id`, string(u))
	if err != nil {
		return nil, fmt.Errorf("list memberships: %w", err)
	}
	return ms, nil
}

// What a conversation has in ($3, $4] of its bucket's log. What was made there begins at the first seq whose
// pos lies behind $3: since pos grows with seq, which has no holes, it is found by halves, each step by
// UNIQUE (bucket, conversation_id, seq). What was changed there has the index messages_log_changed.
const (
	selectMade = `WITH RECURSIVE halves (low, high) AS (
			SELECT CAST(1 AS BIGINT), c.last_seq + 1 FROM conversations c WHERE c.bucket = $1 AND c.id = $2
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

func selectMessagePage(ctx context.Context, tx *sqldb.Tx, query string, cid id.Conversation, n, m int64, limit int) ([]Message, error) {
	return collectMessages(ctx, tx, query, int64(cid.Bucket()), string(cid), n, m, limit)
}

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

// selectNewest are the newest messages up to position m that are not deleted, oldest first, by
// UNIQUE (bucket, conversation_id, seq) from the end; what lies beyond m is passed over.
func selectNewest(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, m int64, limit int) ([]Message, error) {
	page, err := collectMessages(ctx, tx, `SELECT `+messageColumns+` FROM messages m
		WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.pos <= $3 AND NOT m.is_deleted ORDER BY m.seq DESC LIMIT $4`,
		int64(cid.Bucket()), string(cid), m, limit)
	slices.Reverse(page)
	return page, err
}

// selectBucket is what a whole bucket has in (n, m], by the primary key and the index messages_changed.
func selectBucket(ctx context.Context, tx *sqldb.Tx, b id.Bucket, n, m int64) ([]Message, error) {
	return collectMessages(ctx, tx, `SELECT `+messageColumns+` FROM messages m WHERE m.bucket = $1 AND m.pos > $2 AND m.pos <= $3
		UNION ALL SELECT `+messageColumns+` FROM messages m WHERE m.bucket = $1 AND m.changed_pos IS NOT NULL AND m.changed_pos > $2 AND m.changed_pos <= $3 AND m.pos <= $2`,
		int64(b), n, m)
}

// selectMoved reads the conversations of a bucket whose members or settings changed behind n, by conversations_changed.
func selectMoved(ctx context.Context, tx *sqldb.Tx, b id.Bucket, n int64) ([]Conversation, error) {
	var moved []Conversation
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		cv, err := scanConversation(rows)
		moved = append(moved, cv)
		return err
	}, `SELECT `+conversationColumns+` FROM conversations c WHERE c.bucket = $1 AND c.changed_pos > $2`, int64(b), n)
	if err != nil {
		return nil, fmt.Errorf("select moved: %w", err)
	}
	return moved, nil
}

// selectMemberChanges reads the memberships of a conversation that began or ended in (n, m]; bounded by its members.
func selectMemberChanges(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, n, m int64) ([]Member, error) {
	return selectMemberPage(ctx, tx, `SELECT `+memberColumns+` FROM members m WHERE m.bucket = $1 AND m.conversation_id = $2
		AND m.changed_pos > $3 AND m.changed_pos <= $4 ORDER BY m.changed_pos`, int64(cid.Bucket()), string(cid), n, m)
}
