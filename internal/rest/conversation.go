package rest

import (
	"net/http"
	"net/url"

	"parley/internal/chat"
)

// newConversation is the body of create-conversation.
type newConversation struct {
	Type      string   `json:"type" enum:"direct,group,channel" doc:"What it is: direct has two members for ever, in a channel few may post."`
	Name      string   `json:"name,omitempty" doc:"At most 256 bytes."`
	AvatarURL string   `json:"avatar_url,omitempty" doc:"At most 256 bytes."`
	MemberIDs []string `json:"member_ids" doc:"Who is in it besides the caller; at most 1000. Users who are not known come into being."`
}

func (f *face) createConversation(c *call, in newConversation) (chat.Conversation, error) {
	cv, made, err := f.Chat.Create(c.Context(), c.user, chat.NewConversation(in))
	if err != nil {
		return cv, err
	}
	if !made {
		c.status = http.StatusOK
	}
	c.out.Header().Set("Location", "/v1/conversations/"+url.PathEscape(string(cv.ID)))
	return cv, nil
}

// conversationPage is a page of the caller's conversations.
type conversationPage struct {
	Conversations []chat.Conversation `json:"conversations" doc:"At most limit of them."`
	Next          string              `json:"next,omitempty" doc:"The cursor of the next page; absent on the last one."`
}

func (f *face) listConversations(c *call) (p conversationPage, err error) {
	after, limit, err := c.page()
	if err != nil {
		return p, err
	}
	list, last, err := f.Chat.Conversations(c.Context(), c.user, after, limit)
	p.Conversations, p.Next = append([]chat.Conversation{}, list...), pageCursor(last)
	return p, err
}

func (f *face) getConversation(c *call) (chat.Conversation, error) {
	return f.Chat.Conversation(c.Context(), c.user, c.PathValue("id"))
}
