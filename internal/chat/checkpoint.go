package chat

import (
	"context"
	"database/sql"
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
	tag := c.runs.current()
	told := complete.UnixMilli()
	var at Positions
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		var noted, restart sql.NullString
		var lived bool
		skew := clockSkew.Milliseconds()
		_, err := tx.One(ctx, []any{&noted, &lived, &restart}, selectTold, told-skew, told, told+skew)
		if err != nil || !noted.Valid || !lived {
			return err
		}
		to := c.Feed.positions()
		place, reset, err := c.place(ctx, tx, noted.String, to)
		if err != nil || reset {
			return err
		}
		if restart.Valid {
			if to, err = headsOfText(restart.String); err != nil {
				return err
			}
		}
		if pos > to[b] { // that is rare: this node is behind, or it was lost
			heads, err := selectHeads(ctx, tx)
			if err != nil || restart.Valid || pos > heads[b] {
				return err
			}
		}
		at = place
		at[b] = max(at[b], pos)
		return nil
	})
	if err != nil {
		return "", false, fmt.Errorf("chat: cursor at a time: %w", err)
	}
	if at == nil {
		return "", false, nil
	}
	return cursorOf(tag, at), true, nil
}

// selectTold finds the newest checkpoint from before $1. What a client says of itself names no run: whether it was told in
// this history is seen from the time. Somebody must have run here then ($2, or $3 by a clock that is ahead); and at the first
// restart after that the heads, the last column, must have been as far as the client was.
const selectTold = `SELECT
	(SELECT cursor FROM checkpoints WHERE at_ms <= $1 ORDER BY at_ms DESC LIMIT 1),
	EXISTS (SELECT 1 FROM runs WHERE ended_ms IS NULL AND started_ms <= $3) OR EXISTS (SELECT 1 FROM runs WHERE ended_ms IS NOT NULL AND ended_ms >= $1 AND started_ms <= $3),
	(SELECT ended_heads FROM runs WHERE ended_ms IS NOT NULL AND ended_ms > $2 AND ended_by = 'restart' ORDER BY ended_ms LIMIT 1)`

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
			if _, err := tx.Exec(ctx, `INSERT INTO checkpoints (at_ms, cursor) SELECT 0, $1 WHERE NOT EXISTS (SELECT 1 FROM checkpoints)
				ON CONFLICT (at_ms) DO NOTHING`, c.Cursor(nil)); err != nil {
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
