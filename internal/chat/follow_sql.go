package chat

import (
	"context"
	"database/sql"
	"fmt"

	"parley/internal/id"
	"parley/internal/sqldb"
)

// leaseRow is a row of followers.
type leaseRow struct {
	lease     int
	epoch     int64
	holder    string // "": none, or one whose run has ended
	positions Positions
}

// selectLeases reads the 16 rows of a follower, none if it is new, by the primary keys.
func selectLeases(ctx context.Context, tx *sqldb.Tx, name string) (rows []leaseRow, err error) {
	err = tx.Each(ctx, func(r sqldb.Row) error {
		var row leaseRow
		var holder sql.NullString
		var positions string
		if err := r.Scan(&row.lease, &row.epoch, &positions, &holder); err != nil {
			return err
		}
		row.holder = holder.String
		row.positions, err = headsOfText(positions)
		rows = append(rows, row)
		return err
	}, `SELECT f.lease, f.epoch, f.positions, r.tag FROM followers f LEFT JOIN runs r ON r.tag = f.holder AND r.ended_ms IS NULL WHERE f.name = $1 ORDER BY f.lease`, name)
	if err != nil {
		return nil, fmt.Errorf("select leases: %w", err)
	}
	return rows, nil
}

// selectFollowing lists the open runs that would take leases of a follower, in their order.
func selectFollowing(ctx context.Context, tx *sqldb.Tx, name string) (tags []string, err error) {
	err = tx.Each(ctx, func(r sqldb.Row) error {
		var tag string
		err := r.Scan(&tag)
		tags = append(tags, tag)
		return err
	}, `SELECT f.run FROM follower_runs f JOIN runs r ON r.tag = f.run AND r.ended_ms IS NULL WHERE f.name = $1 ORDER BY f.run`, name)
	if err != nil {
		return nil, fmt.Errorf("select following: %w", err)
	}
	return tags, nil
}

var insertLeases = sqldb.NewMulti(`INSERT INTO followers (name, lease, positions) SELECT column1, column2, column3 FROM {rows} AS v WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING`,
	"TEXT", "BIGINT", "TEXT")

// enlist makes a follower that is new, at heads, has takers of its leases take turns until the commit, and has this run
// among them. The lock comes in a statement of its own: what is read behind it is of after the wait. On SQLite whoever
// writes is alone.
func enlist(ctx context.Context, tx *sqldb.Tx, name, run string, heads Positions) error {
	rows := make([][]any, leases)
	for l := range rows {
		at := Positions{}
		for _, b := range bucketsOf(l) {
			at[b] = heads[b]
		}
		rows[l] = []any{name, int64(l), at.text()}
	}
	tx.Queue(insertLeases, rows, nil)
	if tx.Dialect == sqldb.Postgres {
		tx.QueueExec(`SELECT lease FROM followers WHERE name = $1 ORDER BY lease FOR UPDATE`, name)
	}
	tx.QueueExec(`DELETE FROM follower_runs WHERE name = $1 AND run NOT IN (SELECT tag FROM runs WHERE ended_ms IS NULL)`, name)
	tx.QueueExec(`INSERT INTO follower_runs (name, run) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, run)
	if err := tx.Flush(ctx); err != nil {
		return fmt.Errorf("enlist: %w", err)
	}
	return nil
}

var takeLeases = sqldb.NewMulti(`UPDATE followers SET epoch = v.column3, holder = v.column4 FROM {rows} AS v WHERE followers.name = v.column1 AND followers.lease = v.column2`,
	"TEXT", "BIGINT", "BIGINT", "TEXT")

// saveLeases writes positions, and lets go of the lease if column5 says so. It is refused to whoever lost the lease, by the
// epoch, and to a run that has ended: what it read may have been lost.
var saveLeases = sqldb.NewMulti(`UPDATE followers SET positions = v.column4, holder = CASE WHEN v.column5 THEN NULL ELSE holder END FROM {rows} AS v
	WHERE followers.name = v.column1 AND followers.lease = v.column2 AND followers.epoch = v.column3
	AND EXISTS (SELECT 1 FROM runs WHERE runs.tag = followers.holder AND runs.ended_ms IS NULL) RETURNING lease`,
	"TEXT", "BIGINT", "BIGINT", "TEXT", "BOOLEAN")

// bucketsOf are the buckets of a lease.
func bucketsOf(lease int) []id.Bucket {
	buckets := make([]id.Bucket, id.Buckets/leases)
	for i := range buckets {
		buckets[i] = id.Bucket(lease*len(buckets) + i)
	}
	return buckets
}

func leaseOf(b id.Bucket) int { return int(b) / (id.Buckets / leases) }
