package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"parley/test/chaos/history"
)

// wireMessage is what a message's row has that the record needs.
type wireMessage struct {
	ID             string          `json:"id"`
	ConversationID string          `json:"conversation_id"`
	SenderID       string          `json:"sender_id"`
	Content        *string         `json:"content"`
	Type           string          `json:"type"`
	Metadata       json.RawMessage `json:"metadata"`
	IsDeleted      bool            `json:"is_deleted"`
	Seq            int64           `json:"seq"`
	Pos            int64           `json:"pos"`
}

// row is the message for the record: its text becomes the name and the version that it begins with.
func (m *wireMessage) row() history.Row {
	r := history.Row{Conversation: m.ConversationID, ID: m.ID, Seq: m.Seq, Pos: m.Pos, Sender: m.SenderID, Deleted: m.IsDeleted}
	switch {
	case m.IsDeleted:
	case m.Type == "system":
		var told struct {
			Kind    string   `json:"kind"`
			UserIDs []string `json:"user_ids"`
		}
		_ = json.Unmarshal(m.Metadata, &told) // One that tells nothing is judged as such.
		r.System, r.Users = "?"+told.Kind, told.UserIDs
		if told.Kind != "" {
			r.System = told.Kind
		}
	case m.Content != nil:
		r.Name, r.Version = readText(*m.Content)
	}
	return r
}

// text is what a message says: its name and its version, and something of a usual length.
func text(name string, version int64) string {
	return fmt.Sprintf("%s %d the quick brown fox jumps over the lazy dog", name, version)
}

func readText(content string) (name string, version int64) {
	fields := strings.SplitN(content, " ", 3)
	if len(fields) != 3 {
		return "", 0
	}
	version, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return "", 0
	}
	return fields[0], version
}

// wirePage is the answer to sync, as an acknowledgement and by REST.
type wirePage struct {
	OK      bool `json:"ok"`
	Changes []struct {
		Kind       string       `json:"kind"`
		Message    *wireMessage `json:"message"`
		Membership *struct {
			ConversationID string `json:"conversation_id"`
			Active         bool   `json:"active"`
		} `json:"membership"`
	} `json:"changes"`
	Cursor  string `json:"cursor"`
	HasMore bool   `json:"has_more"`
	Reset   bool   `json:"reset"`
}

// into puts the page into the line of its outcome.
func (p *wirePage) into(l *history.Line) {
	l.Cursor, l.More, l.Reset = p.Cursor, p.HasMore, p.Reset
	for _, change := range p.Changes {
		switch {
		case change.Message != nil:
			l.Rows = append(l.Rows, change.Message.row())
		case change.Membership != nil && change.Membership.Active:
			l.Rows = append(l.Rows, history.Row{Kind: history.Joined, Conversation: change.Membership.ConversationID})
		case change.Membership != nil:
			l.Rows = append(l.Rows, history.Row{Kind: history.Left, Conversation: change.Membership.ConversationID})
		}
	}
}

// wireEvent is what the events of the server have that the record needs, all in one.
type wireEvent struct {
	wireMessage
	MessageID string `json:"message_id"`
	Cursor    string `json:"cursor"`
	Reset     bool   `json:"reset"`
	UserID    string `json:"user_id"`
	Role      string `json:"role"`
	Code      string `json:"code"`
}

// into puts the event into its line.
func (e *wireEvent) into(l *history.Line) {
	switch l.Kind {
	case "new-message", "message-updated":
		l.Rows = []history.Row{e.row()}
	case "message-deleted":
		l.Rows = []history.Row{{Conversation: e.ConversationID, ID: e.MessageID, Seq: e.Seq, Pos: e.Pos, Deleted: true}}
	case "conversation-added":
		l.Conversation = e.ID
	case "member-added", "member-removed":
		l.Conversation, l.Users = e.ConversationID, []string{e.UserID}
	case "error":
		l.Code = e.Code
	default:
		l.Conversation, l.Cursor, l.Reset = e.ConversationID, e.Cursor, e.Reset
	}
}

// readEvent decodes the Socket.IO event packet p, which begins with 42.
func readEvent(p []byte) (name string, e wireEvent, err error) {
	var args []json.RawMessage
	if err = json.Unmarshal(p[2:], &args); err == nil && len(args) == 0 {
		err = fmt.Errorf("an event without a name: %.100q", p)
	}
	if err == nil {
		err = json.Unmarshal(args[0], &name)
	}
	if err == nil && len(args) > 1 {
		err = json.Unmarshal(args[1], &e)
	}
	return name, e, err
}

// readAck splits the Socket.IO acknowledgement packet p, which begins with 43, into the number of what it answers and the answer.
func readAck(p []byte) (number int64, answer json.RawMessage, err error) {
	i := strings.IndexByte(string(p), '[')
	if i < 0 {
		return 0, nil, fmt.Errorf("an acknowledgement: %.100q", p)
	}
	if number, err = strconv.ParseInt(string(p[2:i]), 10, 64); err != nil {
		return 0, nil, err
	}
	var args []json.RawMessage
	if err = json.Unmarshal(p[i:], &args); err == nil && len(args) != 1 {
		err = fmt.Errorf("an acknowledgement of %d values", len(args))
	}
	if err != nil {
		return 0, nil, err
	}
	return number, args[0], nil
}
