package rest

import "parley/internal/chat"

func (f *face) sync(c *call) (chat.SyncPage, error) {
	limit, err := c.limit()
	if err != nil {
		return chat.SyncPage{}, err
	}
	return f.Chat.Sync(c.Context(), c.user, c.param("cursor"), limit)
}

// syncRequest is the body of sync-by-post.
type syncRequest struct {
	Cursor string `json:"cursor,omitempty" doc:"How far the caller has got; absent: give a cursor that stands for now."`
	Limit  *int   `json:"limit,omitempty" doc:"About how many changes are wanted at most: 1 to 1000, 200 unless given."`
}

func (f *face) syncByPost(c *call, in syncRequest) (chat.SyncPage, error) {
	limit := syncLimit.standard
	if in.Limit != nil {
		limit = syncLimit.clamp(*in.Limit)
	}
	return f.Chat.Sync(c.Context(), c.user, in.Cursor, limit)
}
