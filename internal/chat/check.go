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
	{"memberships of a user overlap, or a receipt lies outside of his own", `
		SELECT conversation_id, user_id, joined_seq FROM (SELECT ms.*, LAG(left_seq) OVER (PARTITION BY bucket, conversation_id, user_id ORDER BY joined_seq) AS before
			FROM (` + memberships + `) AS ms) AS ordered
		WHERE before > joined_seq OR joined_seq > read_seq OR read_seq > delivered_seq OR delivered_seq > left_seq`},
	{"a membership has ended and is not kept", `
		SELECT m.conversation_id, m.user_id, m.joined_seq FROM members m
		JOIN messages s ON s.bucket = m.bucket AND s.conversation_id = m.conversation_id AND s.seq = m.joined_seq + 1 AND s.pos < m.changed_pos
		LEFT JOIN past_members p ON p.bucket = m.bucket AND p.conversation_id = m.conversation_id AND p.user_id = m.user_id AND p.joined_seq = m.joined_seq
		WHERE NOT m.active AND p.user_id IS NULL`},
	{"ranges of a member do not ascend", `
		SELECT conversation_id, user_id, to_seq FROM (SELECT receipts.*, LAG(to_seq) OVER (PARTITION BY bucket, conversation_id, user_id, kind ORDER BY to_seq) AS before
			FROM receipts) AS ordered
		WHERE from_seq > to_seq OR before >= from_seq`},
	{"a range holds what its member had not received", `
		SELECT r.conversation_id, r.user_id, r.to_seq FROM receipts r
		WHERE NOT EXISTS (` + holds("members") + ` AND m.active) AND NOT EXISTS (` + holds("past_members") + `)`},
	{"a message that a member has read is in no range of his", passedBy("read_seq", "'read'")},
	{"a message that has reached a member is in no range of his", passedBy("delivered_seq", "'read', 'delivered'")},
	{"a deleted message still has a content", `
		SELECT conversation_id, seq, id FROM messages WHERE is_deleted
		AND (content IS NOT NULL OR encrypted_content IS NOT NULL OR file_url IS NOT NULL OR file_name IS NOT NULL OR metadata IS NOT NULL)`},
	{"a message is in a conversation that does not exist, or in another bucket than it", `
		SELECT m.conversation_id, m.seq, m.id FROM messages m
		LEFT JOIN conversations c ON c.bucket = m.bucket AND c.id = m.conversation_id WHERE c.id IS NULL`},
}

// memberships are all that there ever were, those under way with what they may come to.
const memberships = `
	SELECT m.bucket, m.conversation_id, m.user_id, m.joined_seq, m.read_seq, m.delivered_seq, c.last_seq AS left_seq FROM members m
	JOIN conversations c ON c.bucket = m.bucket AND c.id = m.conversation_id WHERE m.active
	UNION ALL SELECT bucket, conversation_id, user_id, joined_seq, read_seq, delivered_seq, left_seq FROM past_members`

// holds finds the membership that the range r lies in.
func holds(table string) string {
	return `SELECT 1 FROM ` + table + ` m WHERE m.bucket = r.bucket AND m.conversation_id = r.conversation_id AND m.user_id = r.user_id
		AND m.joined_seq < r.from_seq AND r.to_seq <= CASE r.kind WHEN 'read' THEN m.read_seq WHEN 'delivered' THEN m.delivered_seq END`
}

// passedBy finds messages of others that a cursor has passed and no range of the kinds holds. It looks into the gaps between
// ranges, where there is nothing but what the member sent himself.
func passedBy(cursor, kinds string) string {
	return `
		WITH ms AS (` + memberships + `),
		edges AS (
			SELECT ms.bucket, ms.conversation_id, ms.user_id, ms.joined_seq, r.from_seq, r.to_seq FROM ms
			JOIN receipts r ON r.bucket = ms.bucket AND r.conversation_id = ms.conversation_id AND r.user_id = ms.user_id
				AND r.kind IN (` + kinds + `) AND r.from_seq > ms.joined_seq AND r.to_seq <= ms.` + cursor + `
			UNION ALL SELECT bucket, conversation_id, user_id, joined_seq, ` + cursor + ` + 1, ` + cursor + ` + 1 FROM ms
		),
		gaps AS (
			SELECT bucket, conversation_id, user_id, from_seq AS below, COALESCE(MAX(to_seq) OVER (
				PARTITION BY bucket, conversation_id, user_id, joined_seq ORDER BY from_seq, to_seq
				ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), joined_seq) AS above
			FROM edges
		)
		SELECT s.conversation_id, gaps.user_id, s.seq FROM gaps
		JOIN messages s ON s.bucket = gaps.bucket AND s.conversation_id = gaps.conversation_id AND s.seq > gaps.above AND s.seq < gaps.below
		WHERE s.sender_id <> gaps.user_id`
}

// Check verifies in one snapshot what the tables can show of the package's promises, and returns what is
// broken, with the first rows that show it: ids and numbers, no text of a message.
// A ctx without a deadline gives it a second on SQLite.
func Check(ctx context.Context, db *sqldb.DB) error {
	var broken []error
	err := db.Read(ctx, func(tx *sqldb.Tx) error {
		if tx.Dialect == sqldb.Postgres {
			// Its sessions are set for finding a few rows by an index; here whole tables are joined.
			for _, setting := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin"} {
				tx.QueueExec("SET LOCAL " + setting + " = on")
			}
			for _, setting := range []string{"join_collapse_limit", "from_collapse_limit"} {
				tx.QueueExec("SET LOCAL " + setting + " = 8")
			}
			tx.QueueExec("SET LOCAL plan_cache_mode = force_custom_plan")
		}
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
