package rest

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"parley/internal/chat"
)

// draft is the body of send-message: a chat.Draft whose conversation stands in the path.
type draft struct {
	Content          *string         `json:"content,omitempty" doc:"The text. It may be absent with encrypted_content."`
	Type             string          `json:"type,omitempty" enum:"text,image,file" doc:"What it is; text unless given."`
	ReplyToID        *string         `json:"reply_to_id,omitempty" doc:"The message of the same conversation that it answers."`
	ClientMessageID  string          `json:"client_message_id,omitempty" doc:"The client's own name for the message, at most 64 bytes: a repetition answers the first one again, another message under it is a conflict."`
	Metadata         json.RawMessage `json:"metadata,omitempty" doc:"An object of the application's own."`
	EncryptedContent *string         `json:"encrypted_content,omitempty" doc:"What the server cannot read."`

	// Chat refuses what it cannot keep yet, so it has to see it.
	FileID      json.RawMessage `json:"file_id,omitempty" hidden:"true"`
	Attachments json.RawMessage `json:"attachments,omitempty" hidden:"true"`
	ThreadID    json.RawMessage `json:"thread_id,omitempty" hidden:"true"`
}

// sent is the answer to send-message, the same as a socket's acknowledgement.
type sent struct {
	OK      bool       `json:"ok" doc:"Always true."`
	Message messageRow `json:"message" doc:"The message as it is stored."`
}

// messageRow is a chat.Message as chat encoded it.
type messageRow struct{ json.RawMessage }

// Schema is that of what it holds.
func (messageRow) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[chat.Message](), true, "")
}

func (f *face) sendMessage(c *call, in draft) (sent, error) {
	row, err := f.Chat.Send(c.Context(), c.user, chat.Draft{
		ConversationID: c.PathValue("id"), Content: in.Content, Type: in.Type, ReplyToID: in.ReplyToID, ClientMessageID: in.ClientMessageID,
		Metadata: in.Metadata, EncryptedContent: in.EncryptedContent, FileID: in.FileID, Attachments: in.Attachments, ThreadID: in.ThreadID,
	})
	return sent{true, messageRow{row}}, err
}

func (f *face) listMessages(c *call) (chat.HistoryPage, error) {
	limit, err := c.limit()
	if err != nil {
		return chat.HistoryPage{}, err
	}
	return f.Chat.History(c.Context(), c.user, c.PathValue("id"), chat.HistoryRange{
		Before: c.param("before"), After: c.param("after"), Around: c.param("around"), Limit: limit,
	})
}

// newContent is the body of edit-message.
type newContent struct {
	Content string `json:"content" doc:"The text that takes the place of the present one."`
}

func (f *face) editMessage(c *call, in newContent) (chat.Message, error) {
	return f.Chat.Edit(c.Context(), c.user, c.PathValue("id"), in.Content)
}

func (f *face) deleteMessage(c *call) (chat.Message, error) {
	return f.Chat.Delete(c.Context(), c.user, c.PathValue("id"))
}
