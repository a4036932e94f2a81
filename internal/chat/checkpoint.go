package chat

import (
	"context"
	"fmt"
	"maps"
	"time"

	"parley/internal/id"
	"parley/internal/sqldb"
)

const (
	// clockSkew is what the clocks of nodes may differ by.
	clockSkew = time.Second
	// checkpointsMax is how many checkpoints are kept; they are pruned after so many new ones.
	checkpointsMax   = 512
	checkpointsPrune = 64
)

// CursorAt returns a cursor for a client that knows only the last of what it was told: the change at position pos of
// bucket b, when the Feed of the node that told it was complete up to a time. The cursor stands at or before what the
// client has got: what it was told in the last seconds may be replayed. found is false if the checkpoints do not reach
// so far back.
func (c *Chat) CursorAt(ctx context.Context, complete time.Time, b id.Bucket, pos int64) (cursor string, found bool, err error) {
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		found, err = tx.One(ctx, []any{&cursor}, `SELECT cursor FROM checkpoints WHERE at_ms <= $1 ORDER BY at_ms DESC LIMIT 1`,
			complete.Add(-clockSkew).UnixMilli())
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("chat: cursor at a time: %w", err)
	}
	if !found {
		return "", false, nil
	}
	at, reset, err := c.parseCursor(cursor)
	if err != nil || reset { // of the database that this one was restored from
		return "", false, nil
	}
	at[b] = max(at[b], pos)
	return c.Cursor(at), true, nil
}

// checkpointer notes where the heads stand, for CursorAt. It belongs to one goroutine.
type checkpointer struct {
	last  Positions // as noted by this node
	notes int
}

// note writes a checkpoint of heads, which were read before now, unless nothing has moved or another node was just here.
func (p *checkpointer) note(ctx context.Context, c *Chat, heads Positions, now time.Time) error {
	if len(heads) == 0 || maps.Equal(heads, p.last) { // none: they have never been read
		return nil
	}
	written := int64(0)
	err := c.db.InTx(ctx, func(tx *sqldb.Tx) (err error) {
		// The first is for a database without any: nothing had been committed at the beginning of time.
		if p.last == nil {
			if _, err := tx.Exec(ctx, `INSERT INTO checkpoints (at_ms, cursor) SELECT 0, $1 WHERE NOT EXISTS (SELECT 1 FROM checkpoints)`, c.Cursor(nil)); err != nil {
				return err
			}
		}
		written, err = tx.Exec(ctx, `INSERT INTO checkpoints (at_ms, cursor) SELECT CAST($1 AS BIGINT), $2
			WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE at_ms > $3) ON CONFLICT (at_ms) DO NOTHING`,
			now.UnixMilli(), c.Cursor(heads), now.Add(-c.o.PollEvery/2).UnixMilli())
		if err != nil {
			return err
		}
		if p.notes%checkpointsPrune == 0 {
			_, err = tx.Exec(ctx, `DELETE FROM checkpoints WHERE at_ms <= (SELECT at_ms FROM checkpoints ORDER BY at_ms DESC LIMIT 1 OFFSET $1)`, checkpointsMax)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("chat: checkpoint: %w", err)
	}
	if p.last == nil {
		p.last = Positions{}
	}
	if written > 0 {
		p.last = heads
		p.notes++
	}
	return nil
}
