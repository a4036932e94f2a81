package chat

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

const (
	historyLimit    = 50
	historyLimitMax = 100
)

// HistoryRange says which messages of a conversation are wanted. At most one of Before, After and Around is set:
// a seq in digits, or a time of RFC 3339. None: the newest.
type HistoryRange struct {
	Before, After, Around string
	Limit                 int // 0: 50; at most 100
}

// HistoryPage holds messages that are not deleted, oldest first.
type HistoryPage struct {
	Messages []Message `json:"messages"`
	Prev     string    `json:"prev,omitempty"` // the value of before for the page of older ones
	Next     string    `json:"next,omitempty"` // the value of after for the page of newer ones
}

// History reads a page of a conversation for one of its members.
// Errors: bad_request, not_found.
func (c *Chat) History(ctx context.Context, u id.User, conversationID string, r HistoryRange) (HistoryPage, error) {
	cid, err := id.ParseConversation(conversationID)
	if err != nil {
		return HistoryPage{}, errNotFound
	}
	given := 0
	for _, s := range []string{r.Before, r.After, r.Around} {
		if s != "" {
			given++
		}
	}
	if given > 1 {
		return HistoryPage{}, problem.New(problem.BadRequest, "Only one of before, after and around can be given.")
	}
	limit := r.Limit
	if limit <= 0 {
		limit = historyLimit
	}
	limit = min(limit, historyLimitMax)
	page := HistoryPage{Messages: []Message{}}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		_, member, err := loadConversation(ctx, tx, cid, u)
		if err != nil {
			return err
		}
		// edge is the seq that a bound stands for: messages before it lie below.
		edge := func(bound string) (int64, error) { return seqAt(ctx, tx, cid, bound) }
		var older, newer []Message // both with one more than is shown, to know whether there are
		olderMax, newerMax := limit, 0
		at := int64(math.MaxInt64)
		switch {
		case r.Before != "":
			at, err = edge(r.Before)
		case r.After != "":
			olderMax, newerMax = 0, limit
			if at, err = edge(r.After); err == nil && isSeq(r.After) {
				at++
			}
		case r.Around != "":
			olderMax, newerMax = limit/2, limit-limit/2
			at, err = edge(r.Around)
		}
		if err != nil {
			return err
		}
		if older, err = selectHistory(ctx, tx, selectOlder, cid, at, olderMax+1); err != nil {
			return err
		}
		if at < math.MaxInt64 {
			if newer, err = selectHistory(ctx, tx, selectNewer, cid, at, newerMax+1); err != nil {
				return err
			}
		}
		moreOlder, moreNewer := len(older) > olderMax, len(newer) > newerMax
		older, newer = older[:min(len(older), olderMax)], newer[:min(len(newer), newerMax)]
		slices.Reverse(older)
		for _, m := range append(older, newer...) {
			page.Messages = append(page.Messages, m.seenBy(u, member.Role))
		}
		if n := len(page.Messages); n > 0 {
			if moreOlder {
				page.Prev = strconv.FormatInt(page.Messages[0].Seq, 10)
			}
			if moreNewer {
				page.Next = strconv.FormatInt(page.Messages[n-1].Seq, 10)
			}
		}
		return nil
	})
	if err != nil {
		return HistoryPage{}, fmt.Errorf("chat: history: %w", err)
	}
	return page, nil
}

func isSeq(bound string) bool {
	_, err := strconv.ParseInt(bound, 10, 64)
	return err == nil
}

// seqAt is a seq in digits, or that of the first message made at a time or later. Messages of one
// millisecond keep their order, since the seq decides.
func seqAt(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, bound string) (int64, error) {
	if seq, err := strconv.ParseInt(bound, 10, 64); err == nil && seq >= 0 && seq < math.MaxInt64 {
		return seq, nil
	}
	t, err := time.Parse(time.RFC3339, bound)
	if err != nil {
		return 0, problem.New(problem.BadRequest, "before, after and around take a seq or a time of RFC 3339.")
	}
	return firstSeqSince(ctx, tx, cid, wire.At(t))
}
