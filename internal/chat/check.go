package chat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"parley/internal/sqldb"
)

// invariants are queries that find what must not be. Each reads whole tables: they are for tests and
// for an operator who asks, not for a busy server.
var invariants = []struct{ broken, query string }{
	{"seq of a conversation does not run from 1 to last_seq without a hole", `
		SELECT c.id, c.last_seq, COUNT(m.seq) FROM conversations c
		LEFT JOIN messages m ON m.bucket = c.bucket AND m.conversation_id = c.id
		GROUP BY c.bucket, c.id, c.last_seq
		HAVING c.last_seq <> COUNT(m.seq) OR (COUNT(m.seq) > 0 AND (MIN(m.seq) <> 1 OR MAX(m.seq) <> COUNT(m.seq)))`},
	{"pos does not grow with seq", `
		SELECT conversation_id, seq, pos FROM (SELECT conversation_id, seq, pos,
			LAG(pos) OVER (PARTITION BY bucket, conversation_id ORDER BY seq) AS before FROM messages) AS ordered
		WHERE before >= pos`},
	{"created_ms goes back within a conversation", `
		SELECT conversation_id, seq, created_ms FROM (SELECT conversation_id, seq, created_ms,
			LAG(created_ms) OVER (PARTITION BY bucket, conversation_id ORDER BY seq) AS before FROM messages) AS ordered
		WHERE before > created_ms`},
	// A membership's changes share the position of their transaction; everything else has one of its own.
	{"a position is used twice in a bucket", `
		SELECT bucket, pos, COUNT(*) FROM (
			SELECT bucket, pos FROM messages
			UNION ALL SELECT bucket, changed_pos FROM messages WHERE changed_pos IS NOT NULL
			UNION ALL SELECT bucket, changed_pos FROM (SELECT DISTINCT bucket, conversation_id, changed_pos FROM members) AS changes
		) AS used GROUP BY bucket, pos HAVING COUNT(*) > 1`},
	{"a position lies beyond the last of its bucket", `
		SELECT used.bucket, used.pos, b.last_pos FROM (
			SELECT bucket, MAX(pos) AS pos FROM messages GROUP BY bucket
			UNION ALL SELECT bucket, MAX(changed_pos) FROM messages GROUP BY bucket
			UNION ALL SELECT bucket, MAX(last_pos) FROM conversations GROUP BY bucket
			UNION ALL SELECT bucket, MAX(changed_pos) FROM members GROUP BY bucket
		) AS used JOIN buckets b ON b.bucket = used.bucket WHERE used.pos > b.last_pos`},
	{"changed_pos of a message is not after its pos", `
		SELECT conversation_id, pos, changed_pos FROM messages WHERE changed_pos <= pos`},
	{"a receipt is ahead of what it follows", `
		SELECT m.conversation_id, m.user_id, m.read_seq FROM members m
		JOIN conversations c ON c.bucket = m.bucket AND c.id = m.conversation_id
		WHERE m.read_seq > m.delivered_seq OR m.delivered_seq > c.last_seq OR m.read_seq < 0`},
	{"last_message_id or last_message_ms is not that of the last message", `
		SELECT c.id, c.last_message_id, m.id FROM conversations c
		LEFT JOIN messages m ON m.bucket = c.bucket AND m.conversation_id = c.id AND m.seq = c.last_seq
		WHERE COALESCE(c.last_message_id, '') <> COALESCE(m.id, '') OR COALESCE(c.last_message_ms, 0) <> COALESCE(m.created_ms, 0)`},
	{"last_pos of a conversation is not that of the last change in it", `
		SELECT c.id, c.last_pos, last.pos FROM conversations c JOIN (
			SELECT bucket, id, MAX(pos) AS pos FROM (
				SELECT bucket, id, changed_pos AS pos FROM conversations
				UNION ALL SELECT bucket, conversation_id, COALESCE(changed_pos, pos) FROM messages
				UNION ALL SELECT bucket, conversation_id, changed_pos FROM members
			) AS every GROUP BY bucket, id
		) AS last ON last.bucket = c.bucket AND last.id = c.id WHERE c.last_pos <> last.pos`},
	{"member_count is not the number of members", `
		SELECT c.id, c.member_count, COUNT(m.user_id) FROM conversations c
		LEFT JOIN members m ON m.bucket = c.bucket AND m.conversation_id = c.id AND m.active
		GROUP BY c.bucket, c.id, c.member_count HAVING c.member_count <> COUNT(m.user_id)`},
	{"members and user_conversations differ", `
		SELECT m.conversation_id, m.user_id, 'no row of the user' FROM members m
		LEFT JOIN user_conversations u ON u.bucket = m.bucket AND u.conversation_id = m.conversation_id AND u.user_id = m.user_id
		WHERE u.user_id IS NULL
		UNION ALL SELECT u.conversation_id, u.user_id, 'no row of the member' FROM user_conversations u
		LEFT JOIN members m ON u.bucket = m.bucket AND u.conversation_id = m.conversation_id AND u.user_id = m.user_id
		WHERE m.user_id IS NULL`},
	{"a deleted message still has a content", `
		SELECT conversation_id, seq, id FROM messages WHERE is_deleted
		AND (content IS NOT NULL OR encrypted_content IS NOT NULL OR file_url IS NOT NULL OR file_name IS NOT NULL OR metadata IS NOT NULL)`},
	{"a message is in a conversation that does not exist, or in another bucket than it", `
		SELECT m.conversation_id, m.seq, m.id FROM messages m
		LEFT JOIN conversations c ON c.bucket = m.bucket AND c.id = m.conversation_id WHERE c.id IS NULL`},
}

// Check verifies in one snapshot what the tables can show of the package's promises, and returns what is
// broken, with the first rows that show it: ids and numbers, no text of a message.
// A ctx without a deadline gives it a second on SQLite.
func Check(ctx context.Context, db *sqldb.DB) error {
	var broken []error
	err := db.Read(ctx, func(tx *sqldb.Tx) error {
		for _, inv := range invariants {
			rows := 0
			err := tx.Each(ctx, func(r sqldb.Row) error {
				var a, b, c sql.NullString
				if err := r.Scan(&a, &b, &c); err != nil {
					return err
				}
				if rows++; rows <= 3 {
					broken = append(broken, fmt.Errorf("chat: %s: %s, %s, %s", inv.broken, a.String, b.String, c.String))
				}
				return nil
			}, inv.query)
			if err != nil {
				return fmt.Errorf("chat: check: %s: %w", inv.broken, err)
			}
		}
		return nil
	})
	return errors.Join(append(broken, err)...)
}
