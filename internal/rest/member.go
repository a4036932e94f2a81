package rest

import "parley/internal/chat"

// memberPage is a page of a conversation's members.
type memberPage struct {
	Members []chat.Member `json:"members" doc:"At most limit of them."`
	Next    string        `json:"next,omitempty" doc:"The cursor of the next page; absent on the last one."`
}

func (f *face) listMembers(c *call) (p memberPage, err error) {
	after, limit, err := c.userPage()
	if err != nil {
		return p, err
	}
	list, last, err := f.Chat.Members(c.Context(), c.user, c.PathValue("id"), string(after), limit)
	p.Members, p.Next = append([]chat.Member{}, list...), pageCursor(last)
	return p, err
}

// newMembers is the body of add-members.
type newMembers struct {
	MemberIDs []string  `json:"member_ids" doc:"Who is added; 1 to 1000. Users who are not known come into being."`
	Role      chat.Role `json:"role,omitempty" enum:"admin,moderator,member,guest" doc:"What they are; member unless given, and never more than the caller."`
}

func (f *face) addMembers(c *call, in newMembers) (chat.Conversation, error) {
	return f.Chat.AddMembers(c.Context(), c.user, c.PathValue("id"), in.MemberIDs, in.Role)
}

func (f *face) removeMember(c *call) (nothing, error) {
	_, err := f.Chat.RemoveMember(c.Context(), c.user, c.PathValue("id"), c.PathValue("user_id"))
	return nothing{}, err
}
