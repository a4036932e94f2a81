package chat

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"

	"parley/internal/sqldb"
)

// moment is a point in the life of a database: the clock of the server that the transaction is on, and which server.
type moment struct {
	ms     int64
	server string
}

// A server of PostgreSQL is told from another one, and from itself before a restart, by when its process began; a copy
// inside of it by the database's own number. All that can take from PostgreSQL what it has committed goes through a
// start of the server or makes a new database: a failing over, a backup or a snapshot that is restored.
const selectMoment = `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT),
	CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT) || '/' || oid FROM pg_database WHERE datname = current_database()`

// moment asks PostgreSQL. A SQLite database is served by one process, whose clock it has.
func (c *Chat) moment(ctx context.Context, tx *sqldb.Tx) (m moment, err error) {
	if tx.Dialect == sqldb.SQLite {
		return moment{c.now().UnixMilli(), c.runs.process}, nil
	}
	if _, err := tx.One(ctx, []any{&m.ms, &m.server}, selectMoment); err != nil {
		return m, fmt.Errorf("select moment: %w", err)
	}
	return m, nil
}

// Why a run ended.
const (
	endedByItself  = "itself"
	endedBySilence = "silence" // of its node
	endedByRestart = "restart" // another server was met, which may have lost something before
)

// arrive comes before anything is written on a server that was not met before, which may have lost what was committed
// last: all runs end, or if there is none, the heads are noted for [Chat.CursorAt].
//
// Of those who arrive at once one goes first: what the others read behind the lock shows it. He who finds nothing to do
// can write, for whoever did it has committed.
func arrive(ctx context.Context, tx *sqldb.Tx, m moment) error {
	for _, lock := range []bool{false, true} {
		if lock && tx.Dialect == sqldb.Postgres {
			if _, err := tx.Exec(ctx, `LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE`); err != nil {
				return fmt.Errorf("arrive: %w", err)
			}
		}
		var known bool
		if _, err := tx.One(ctx, []any{&known}, `SELECT EXISTS (SELECT 1 FROM runs WHERE server = $1) AND NOT EXISTS (SELECT 1 FROM runs WHERE ended_ms IS NULL AND server <> $1)`, m.server); err != nil {
			return fmt.Errorf("arrive: %w", err)
		}
		if known {
			return nil
		}
	}
	heads, err := selectHeads(ctx, tx)
	if err != nil {
		return err
	}
	ended, err := endRuns(ctx, tx, m, heads, false)
	if err != nil || ended > 0 {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO runs (tag, server, started_ms, beat_ms, ended_ms, ended_heads, ended_by) VALUES ($1, $2, $3, $3, $3, $4, '`+endedByRestart+`')`,
		newRunTag().String(), m.server, m.ms, heads.text())
	if err != nil {
		return fmt.Errorf("arrive: %w", err)
	}
	return nil
}

// endRuns ends the open runs that were begun on another server or have been silent for too long, or all of them, and
// returns how many. On one server heads only grow, so heads that were read a moment before the end are merely strict.
func endRuns(ctx context.Context, tx *sqldb.Tx, m moment, heads Positions, all bool) (ended int64, err error) {
	ended, err = tx.Exec(ctx, `UPDATE runs SET ended_ms = $1, ended_heads = $2, ended_by = CASE WHEN server <> $3 OR $5 THEN '`+endedByRestart+`' ELSE '`+endedBySilence+`' END
		WHERE ended_ms IS NULL AND (server <> $3 OR beat_ms < $4 OR $5)`,
		m.ms, heads.text(), m.server, m.ms-silenceMax.Milliseconds(), all)
	if err != nil {
		return 0, fmt.Errorf("end runs: %w", err)
	}
	return ended, nil
}

func insertRun(ctx context.Context, tx *sqldb.Tx, tag runTag, m moment) error {
	_, err := tx.Exec(ctx, `INSERT INTO runs (tag, server, started_ms, beat_ms) VALUES ($1, $2, $3, $3)`, tag.String(), m.server, m.ms)
	if err != nil {
		return fmt.Errorf("insert run: %w", err)
	}
	return nil
}

// selectRun is served by the primary key; by says what ended the run.
func selectRun(ctx context.Context, tx *sqldb.Tx, tag runTag) (r run, by string, err error) {
	var ended sql.NullInt64
	var heads, why sql.NullString
	r.known, err = tx.One(ctx, []any{&ended, &heads, &why}, `SELECT ended_ms, ended_heads, ended_by FROM runs WHERE tag = $1`, tag.String())
	if err != nil {
		return run{}, "", fmt.Errorf("select run: %w", err)
	}
	if r.ended = ended.Valid; r.ended {
		r.heads, err = headsOfText(heads.String)
	}
	return r, why.String, err
}

// text is how heads stand in a row: as in a cursor, without the buckets that are empty.
func (p Positions) text() string {
	some := make(Positions, len(p))
	for b, n := range p {
		if n > 0 {
			some[b] = n
		}
	}
	return base64.RawURLEncoding.EncodeToString(some.append(nil))
}

func headsOfText(text string) (Positions, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("chat: heads in a row: %w", err)
	}
	p, ok := readPositions(b)
	if !ok {
		return nil, fmt.Errorf("chat: heads in a row cannot be read")
	}
	return p, nil
}
