package chat

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"parley/internal/id"
	"parley/internal/sqldb"
)

// messageColumns are what scanMessage expects, of a table named m.
const messageColumns = `m.id, m.conversation_id, m.sender_id, m.content, m.type, m.encrypted_content, m.file_url, m.file_name, m.file_size,
	m.metadata, m.reply_to_id, m.is_edited, m.is_deleted, m.is_flagged, m.edited_ms, m.deleted_ms, m.created_ms, m.seq,
	m.pos, COALESCE(m.changed_pos, m.pos), COALESCE(m.client_message_id, ''), COALESCE(m.request_hash, '')`

func scanMessage(rows sqldb.Row, more ...any) (Message, error) {
	var m Message
	var metadata sql.NullString
	err := rows.Scan(append([]any{&m.ID, &m.ConversationID, &m.SenderID, &m.Content, &m.Type, &m.EncryptedContent, &m.FileURL, &m.FileName, &m.FileSize,
		&metadata, &m.ReplyToID, &m.IsEdited, &m.IsDeleted, &m.flagged, &m.EditedAt, &m.DeletedAt, &m.CreatedAt, &m.Seq,
		&m.made, &m.Pos, &m.ClientMessageID, &m.hash}, more...)...)
	if metadata.Valid {
		m.Metadata = json.RawMessage(metadata.String)
	}
	m.fill()
	return m, err
}

// loadMessage is served by the unique key of ids. Errors: errMessageNotFound.
func loadMessage(ctx context.Context, tx *sqldb.Tx, mid id.Message) (m Message, err error) {
	found := false
	err = tx.Each(ctx, func(rows sqldb.Row) error {
		found = true
		m, err = scanMessage(rows)
		return err
	}, `SELECT `+messageColumns+` FROM messages m WHERE m.bucket = $1 AND m.id = $2`, int64(mid.Bucket()), string(mid))
	if err != nil {
		return Message{}, fmt.Errorf("load message: %w", err)
	}
	if !found {
		return Message{}, errMessageNotFound
	}
	return m, nil
}

var insertMessages = sqldb.NewMulti(`INSERT INTO messages (bucket, pos, conversation_id, seq, id, sender_id, type, content, encrypted_content,
	metadata, reply_to_id, client_message_id, request_hash, is_flagged, created_ms)
	SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12, column13, column14, column15
	FROM {rows} AS v WHERE column1 IS NOT NULL`,
	"BIGINT", "BIGINT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BOOLEAN", "BIGINT")

// insertRow are the values of one new message for insertMessages.
func (m *Message) insertRow() []any {
	var metadata, replyTo, client, hash any // NULL
	if len(m.Metadata) > 0 && string(m.Metadata) != "null" {
		metadata = string(m.Metadata)
	}
	if m.ReplyToID != nil {
		replyTo = string(*m.ReplyToID)
	}
	if m.ClientMessageID != "" {
		client, hash = m.ClientMessageID, m.hash
	}
	return []any{int64(m.ID.Bucket()), m.made, string(m.ConversationID), m.Seq, string(m.ID), string(m.SenderID), m.Type, text(m.Content), text(m.EncryptedContent),
		metadata, replyTo, client, hash, m.flagged, int64(m.CreatedAt)}
}

func text(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

// saveMessage writes a message that was changed at m.Pos, and moves the conversation's last_pos there.
func saveMessage(ctx context.Context, l *logTx, m *Message) error {
	content, metadata := text(m.Content), any(nil)
	if m.IsDeleted {
		content = nil
	}
	if len(m.Metadata) > 0 && string(m.Metadata) != "null" {
		metadata = string(m.Metadata)
	}
	var replyTo any
	if m.ReplyToID != nil {
		replyTo = string(*m.ReplyToID)
	}
	_, err := l.Exec(ctx, `UPDATE messages SET changed_pos = $3, content = $4, encrypted_content = $5, file_url = $6, file_name = $7, file_size = $8,
		metadata = $9, reply_to_id = $10, is_edited = $11, is_deleted = $12, is_flagged = $13, edited_ms = $14, deleted_ms = $15
		WHERE bucket = $1 AND id = $2`,
		int64(m.ID.Bucket()), string(m.ID), m.Pos, content, text(m.EncryptedContent), text(m.FileURL), text(m.FileName), m.FileSize,
		metadata, replyTo, m.IsEdited, m.IsDeleted, m.flagged, (*int64)(m.EditedAt), (*int64)(m.DeletedAt))
	if err == nil {
		err = moveConversation(ctx, l, m.ConversationID, m.Pos)
	}
	if err != nil {
		return fmt.Errorf("save message: %w", err)
	}
	return nil
}
