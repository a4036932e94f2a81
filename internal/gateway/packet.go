package gateway

import (
	"encoding/json"

	"parley/internal/chat"
	"parley/internal/id"
	"parley/socketio"
)

// namespace is the one that clients connect to.
const namespace = "/"

// packetOf is an event whose payload is encoded already, and further arguments, which are JSON too.
func packetOf(name string, row json.RawMessage, args ...[]byte) *socketio.Packet {
	return socketio.NewRawPacket(namespace, name, append([][]byte{row}, args...)...)
}

// packetFor is an event with a payload of ours, and further arguments, which are JSON already.
func packetFor(name string, payload any, args ...[]byte) *socketio.Packet {
	all := []any{payload}
	for _, arg := range args {
		all = append(all, json.RawMessage(arg))
	}
	p, err := socketio.NewPacket(namespace, name, all...)
	if err != nil {
		panic("gateway: a payload of ours cannot be encoded: " + err.Error())
	}
	return p
}

type conversationRemoved struct {
	ConversationID id.Conversation `json:"conversation_id"`
	Pos            int64           `json:"pos"`
}

type memberChanged struct {
	ConversationID id.Conversation `json:"conversation_id"`
	UserID         id.User         `json:"user_id"`
	Role           chat.Role       `json:"role"`
	By             id.User         `json:"by,omitempty"`
	Pos            int64           `json:"pos"`
}

func memberChange(ch *chat.Change, m chat.Member) memberChanged {
	return memberChanged{ch.Conversation, m.UserID, m.Role, ch.By, ch.Pos}
}

// replayed is the event that tells a client of something it missed.
func replayed(u id.User, e *chat.Entry, args [][]byte) *socketio.Packet {
	switch e.Kind {
	case chat.EntryRemoved:
		return packetFor("conversation-removed", conversationRemoved{e.ConversationID(), e.Pos}, args...)
	case chat.EntryJoined:
		return packetFor("conversation-added", e.Conversation, args...)
	case chat.EntryConversation:
		return packetFor("conversation-updated", e.Conversation, args...)
	case chat.EntryMessageNew:
		return packetFor("new-message", e.Message, args...)
	default:
		if e.Message.IsDeleted {
			return packetFor("message-deleted", e.Message.Deleted(), args...)
		}
		return packetFor("message-updated", e.Message, args...)
	}
}
