package rest

import "parley/internal/chat"

// receiptPage is how far a message has got, and a page of those whom it concerns.
type receiptPage struct {
	Status  chat.Status        `json:"status" enum:"sent,delivered,read" doc:"How far the message has got with all whom it concerns; sent if it concerns nobody."`
	Counts  chat.ReceiptCounts `json:"counts" doc:"With how many it has got how far."`
	Readers []chat.Reader      `json:"readers" doc:"At most limit of those whom it concerns, in the order of their ids: the members when it was sent, but its sender."`
	Next    string             `json:"next,omitempty" doc:"The cursor of the next page; absent on the last one."`
}

func (f *face) listReceipts(c *call) (p receiptPage, err error) {
	after, limit, err := c.userPage()
	if err != nil {
		return p, err
	}
	got, err := f.Chat.Receipts(c.Context(), c.user, c.PathValue("id"), after, limit)
	return receiptPage{got.Status, got.Counts, append([]chat.Reader{}, got.Readers...), pageCursor(string(got.Next))}, err
}
