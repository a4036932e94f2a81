package chat

import (
	"context"
	"fmt"
	"math"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// Served by UNIQUE (bucket, conversation_id, seq); tombstones on the way are passed over.
const (
	selectOlder = `SELECT ` + messageColumns + ` FROM messages m
		WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.seq < $3 AND NOT m.is_deleted ORDER BY m.seq DESC LIMIT $4`
	selectNewer = `SELECT ` + messageColumns + ` FROM messages m
		WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.seq >= $3 AND NOT m.is_deleted ORDER BY m.seq LIMIT $4`
)

func selectHistory(ctx context.Context, tx *sqldb.Tx, query string, cid id.Conversation, at int64, limit int) ([]Message, error) {
	return collectMessages(ctx, tx, query, int64(cid.Bucket()), string(cid), at, limit)
}

// firstSeqSince searches by halves, each step by UNIQUE (bucket, conversation_id, seq): created_ms grows
// with seq, and no index need hold it. Beyond the last message: the largest seq there is.
func firstSeqSince(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, t wire.Time) (int64, error) {
	var last int64
	if _, err := tx.One(ctx, []any{&last}, `SELECT last_seq FROM conversations WHERE bucket = $1 AND id = $2`, int64(cid.Bucket()), string(cid)); err != nil {
		return 0, fmt.Errorf("first seq since: %w", err)
	}
	low, high := int64(1), last+1 // the answer lies in low to high
	for low < high {
		mid := low + (high-low)/2
		var at wire.Time
		_, err := tx.One(ctx, []any{&at}, `SELECT created_ms FROM messages WHERE bucket = $1 AND conversation_id = $2 AND seq = $3`, int64(cid.Bucket()), string(cid), mid)
		if err != nil {
			return 0, fmt.Errorf("first seq since: %w", err)
		}
		if at >= t {
			high = mid
		} else {
			low = mid + 1
		}
	}
	if low > last {
		return math.MaxInt64 - 1, nil
	}
	return low, nil
}
