package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/wire"
)

// DeletedContent stands where a deleted message's text was.
const DeletedContent = "[Message deleted]"

// Message is a row of messages as a client sees it; the names and their order are the tutorial's,
// followed by ours.
type Message struct {
	ID               id.Message      `json:"id"`
	ConversationID   id.Conversation `json:"conversation_id"`
	SenderID         id.User         `json:"sender_id"`
	Content          *string         `json:"content"`
	Type             string          `json:"type" enum:"text,image,file,system,call"`
	EncryptedContent *string         `json:"encrypted_content"`
	FileURL          *string         `json:"file_url"`
	FileName         *string         `json:"file_name"`
	FileSize         *int64          `json:"file_size"`
	Metadata         json.RawMessage `json:"metadata"`
	Reactions        json.RawMessage `json:"reactions"`
	ReplyToID        *id.Message     `json:"reply_to_id"`
	IsEdited         bool            `json:"is_edited"`
	IsDeleted        bool            `json:"is_deleted"`
	IsFlagged        bool            `json:"is_flagged"` // true only for those who may moderate
	EditedAt         *wire.Time      `json:"edited_at"`
	DeletedAt        *wire.Time      `json:"deleted_at"`
	CreatedAt        wire.Time       `json:"created_at"`
	Seq              int64           `json:"seq"`
	Pos              int64           `json:"pos"` // of its last change in its bucket's log
	ReactionCounts   json.RawMessage `json:"reaction_counts"`
	ClientMessageID  string          `json:"client_message_id,omitempty"` // for its sender only

	made    int64  // pos of its creation
	hash    string // of the request that ClientMessageID came with
	flagged bool   // what moderation said
}

var emptyObject = json.RawMessage(`{}`)

// seenBy is the row as one member may see it.
func (m Message) seenBy(u id.User, role Role) Message {
	if m.SenderID != u {
		m.ClientMessageID = ""
	}
	m.IsFlagged = m.flagged && role.may(moderate)
	return m
}

// bytes is about how much memory the message takes.
func (m *Message) bytes() int {
	const rest = 512
	n := rest + len(m.Metadata)
	for _, text := range []*string{m.Content, m.EncryptedContent} {
		if text != nil {
			n += len(*text)
		}
	}
	return n
}

// row is the message as every member may see it.
func (m Message) row() json.RawMessage {
	m.ClientMessageID, m.IsFlagged = "", false
	b, err := json.Marshal(m)
	if err != nil {
		panic("chat: a message cannot be encoded: " + err.Error()) // its raw parts were checked when they came
	}
	return b
}

// RowForSender adds to a message's row what only its sender may see.
func RowForSender(row json.RawMessage, clientMessageID string) json.RawMessage {
	if clientMessageID == "" {
		return row
	}
	return withField(row, "client_message_id", clientMessageID)
}

// withField adds a text field at the end of an encoded object that is not empty.
func withField(row json.RawMessage, name, value string) json.RawMessage {
	quoted, err := json.Marshal(value)
	if err != nil {
		panic("chat: a string cannot be encoded: " + err.Error())
	}
	b := make([]byte, 0, len(row)+len(name)+len(quoted)+4)
	b = append(b, row[:len(row)-1]...)
	b = append(append(append(b, `,"`...), name...), `":`...)
	return append(append(b, quoted...), '}')
}

// Deleted is the payload of message-deleted.
type Deleted struct {
	MessageID      id.Message      `json:"message_id"`
	ConversationID id.Conversation `json:"conversation_id"`
	Seq            int64           `json:"seq"`
	DeletedAt      wire.Time       `json:"deleted_at"`
	Pos            int64           `json:"pos"`
}

// Deleted tells of a message that is deleted.
func (m *Message) Deleted() Deleted {
	return Deleted{m.ID, m.ConversationID, m.Seq, *m.DeletedAt, m.Pos}
}

// Deleted is the same for a change; ch is of the kind MessageDeleted.
func (ch *Change) Deleted() Deleted {
	return Deleted{ch.Message.ID, ch.Conversation, ch.Message.Seq, *ch.Message.DeletedAt, ch.Pos}
}

// change is m at its present position of the log.
func (m *Message) change(kind Kind) Change {
	return Change{
		Kind: kind, Pos: m.Pos, Conversation: m.ConversationID, Row: m.row(),
		Message: &MessageRef{m.ID, m.Seq, m.SenderID, m.ClientMessageID, m.DeletedAt},
	}
}

// publicMessage is the tutorial's payload of chat.message.*.
func publicMessage(ch Change, now time.Time) []byte {
	b, err := json.Marshal(struct {
		ConversationID id.Conversation `json:"conversation_id"`
		Message        json.RawMessage `json:"message"`
		Timestamp      wire.Time       `json:"timestamp"`
	}{ch.Conversation, ch.Row, wire.At(now)})
	if err != nil {
		panic("chat: a message cannot be encoded: " + err.Error())
	}
	return b
}

var (
	errNotFound        = problem.New(problem.NotFound, problem.ConversationNotFound)
	errMessageNotFound = problem.New(problem.NotFound, "Message not found")
	errNotAuthorized   = problem.New(problem.Forbidden, problem.UserNotAuthorized)
)

// Edit replaces the text of a message, by its author.
// Errors: bad_request (empty or too long), not_found (no such message, or no longer a member),
// forbidden (another's message), conflict (deleted, or a system message).
func (c *Chat) Edit(ctx context.Context, u id.User, messageID string, content string) (Message, error) {
	if content == "" || len(content) > c.o.ContentBytesMax {
		return Message{}, badContent(c.o.ContentBytesMax)
	}
	flagged, unjudged := c.o.Judge(ctx, content) // it may take its time, which a transaction must not
	return c.changeMessage(ctx, u, messageID, func(l *logTx, m *Message, _ Role) (Kind, error) {
		switch {
		case m.SenderID != u:
			return "", errNotAuthorized
		case m.IsDeleted:
			return "", problem.New(problem.Conflict, "The message has been deleted.")
		case m.Type == "system" || m.Content == nil:
			return "", problem.New(problem.Conflict, "The message has no text of its author's.")
		}
		m.Content, m.IsEdited, m.EditedAt = &content, true, &l.now
		m.flagged = flagged && unjudged == nil
		if unjudged != nil {
			return MessageUpdated, c.unjudged(m.ConversationID, unjudged)
		}
		return MessageUpdated, nil
	})
}

// Delete makes a tombstone of a message for everyone: its id, seq, sender and times stay, the rest goes.
// Its author may, and those who moderate. Deleting twice changes nothing.
// Errors: not_found, forbidden.
func (c *Chat) Delete(ctx context.Context, u id.User, messageID string) (Message, error) {
	return c.changeMessage(ctx, u, messageID, func(l *logTx, m *Message, role Role) (Kind, error) {
		if m.SenderID != u && !role.may(moderate) {
			return "", errNotAuthorized
		}
		if m.IsDeleted {
			return "", nil
		}
		*m = Message{
			ID: m.ID, ConversationID: m.ConversationID, SenderID: m.SenderID, Type: m.Type, CreatedAt: m.CreatedAt, Seq: m.Seq, made: m.made,
			ClientMessageID: m.ClientMessageID, hash: m.hash, IsDeleted: true, DeletedAt: &l.now, IsEdited: m.IsEdited, EditedAt: m.EditedAt,
		}
		return MessageDeleted, nil
	})
}

// changeMessage loads a message under the lock of its bucket, has f change it (an empty Kind: nothing
// to do), writes and tells it, and returns it as u may see it.
func (c *Chat) changeMessage(ctx context.Context, u id.User, messageID string, f func(*logTx, *Message, Role) (Kind, error)) (Message, error) {
	mid, err := id.ParseMessage(messageID)
	if err != nil {
		return Message{}, errMessageNotFound
	}
	var out Message
	err = c.changeAndTell(ctx, mid.Bucket(), func(l *logTx) error {
		m, err := loadMessage(ctx, l.Tx, mid)
		if err != nil {
			return err
		}
		member, err := loadMember(ctx, l.Tx, m.ConversationID, u)
		if err != nil {
			return err
		}
		if !member.Active {
			return errMessageNotFound
		}
		kind, err := f(l, &m, member.Role)
		if err != nil {
			return err
		}
		if kind != "" {
			m.Pos = l.next(mid.Bucket())
			if err := saveMessage(ctx, l, &m); err != nil {
				return err
			}
			m.fill()
			l.tell(m.change(kind))
		}
		out = m.seenBy(u, member.Role)
		return nil
	})
	if err != nil {
		return Message{}, fmt.Errorf("chat: change message: %w", err)
	}
	return out, nil
}

// fill puts in what every row shows and no column holds.
func (m *Message) fill() {
	m.Reactions, m.ReactionCounts = emptyObject, emptyObject
	if m.IsDeleted {
		s := DeletedContent
		m.Content = &s
	}
	if len(m.Metadata) == 0 {
		m.Metadata = json.RawMessage("null")
	}
}

func badContent(bytesMax int) error {
	return problem.New(problem.BadRequest, fmt.Sprintf("content must have 1 to %d bytes.", bytesMax))
}

// compact brings a JSON value into the form that it is stored in.
func compact(raw json.RawMessage) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
