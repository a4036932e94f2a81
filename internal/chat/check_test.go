package chat

import (
	"context"
	"strings"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestCheckFindsWhatIsBroken breaks one row for each invariant, and wants it named.
func TestCheckFindsWhatIsBroken(t *testing.T) {
	breaks := map[string]string{ // by a part of the invariant's words
		"without a hole":                `UPDATE conversations SET last_seq = last_seq + 1`,
		"does not grow with seq":        `UPDATE messages SET pos = 900 WHERE seq = 1`,
		"goes back within":              `UPDATE messages SET created_ms = created_ms + 100000 WHERE seq = 1`,
		"used twice":                    `UPDATE messages SET changed_pos = (SELECT MAX(pos) FROM messages) WHERE seq = 1`,
		"beyond the last of":            `UPDATE buckets SET last_pos = last_pos - 1 WHERE last_pos > 0`,
		"not after its pos":             `UPDATE messages SET changed_pos = pos WHERE seq = 2`,
		"receipt is ahead":              `UPDATE members SET read_seq = 99, delivered_seq = 99 WHERE user_id = 'bob'`,
		"not that of the last mess":     `UPDATE conversations SET last_message_id = 'x'`,
		"not that of the last chang":    `UPDATE conversations SET last_pos = last_pos + 1`,
		"member_count":                  `UPDATE conversations SET member_count = member_count + 1`,
		"user_conversations differ":     `DELETE FROM user_conversations WHERE user_id = 'bob'`,
		"memberships of a user overlap": `INSERT INTO past_members SELECT bucket, conversation_id, user_id, 0, 2, 0, 0 FROM members WHERE user_id = 'bob'`,
		"has ended and is not kept":     `UPDATE members SET active = FALSE, changed_pos = 900 WHERE user_id = 'bob'`,
		"do not ascend":                 `INSERT INTO receipts SELECT m.bucket, m.conversation_id, m.user_id, 'read', 1, s.seq, 0 FROM members m JOIN messages s ON s.bucket = m.bucket WHERE m.user_id = 'bob'`,
		"had not received":              `INSERT INTO receipts SELECT bucket, conversation_id, user_id, 'read', 1, 1, 0 FROM members WHERE user_id = 'bob'`,
		"has read is in no":             `UPDATE members SET read_seq = 2, delivered_seq = 2 WHERE user_id = 'bob'`,
		"has reached a member is":       `UPDATE members SET delivered_seq = 2 WHERE user_id = 'bob'`,
		"still has a content":           `UPDATE messages SET is_deleted = TRUE WHERE seq = 2`,
		"does not exist":                `UPDATE messages SET conversation_id = 'x' WHERE seq = 3`,
	}
	if len(breaks) != len(invariants) {
		t.Fatalf("%d rows to break for %d invariants", len(breaks), len(invariants))
	}
	for words, statement := range breaks {
		t.Run(words, func(t *testing.T) {
			sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
				n := start(t, db, Options{})
				cv := n.group(t, "ann", "bob")
				n.send(t, "ann", cv.ID, "1", "")
				n.send(t, "ann", cv.ID, "2", "")
				n.send(t, "ann", cv.ID, "3", "")
				if err := Check(t.Context(), db); err != nil {
					t.Fatalf("before: %v", err)
				}
				err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
					changed, err := tx.Exec(context.Background(), statement)
					if err == nil && changed == 0 {
						t.Error("nothing was broken")
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := Check(t.Context(), db); err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("Check = %v, want %q", err, words)
				}
			})
		})
	}
}
