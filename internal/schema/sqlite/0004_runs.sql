-- +goose Up

-- The times that server processes spent on this database. A cursor carries the tag of the run that it was given out in;
-- from ended_heads, where the heads of all logs stood when the run ended, it is known for ever which of its cursors belong
-- to this history of the database. Where a server is met for the first time and no run is open to be ended, a row that is no
-- process's keeps the heads. A row is never removed. Owner: chat.
CREATE TABLE runs (
    tag         TEXT PRIMARY KEY,
    server      TEXT NOT NULL, -- which server of PostgreSQL, or process on SQLite, it was begun on
    started_ms  BIGINT NOT NULL,
    beat_ms     BIGINT NOT NULL, -- when it was last heard of, by the clock of the database
    ended_ms    BIGINT,
    ended_heads TEXT,
    ended_by    TEXT -- itself, silence, restart
);
CREATE INDEX runs_server ON runs (server);
CREATE INDEX runs_open ON runs (beat_ms) WHERE ended_ms IS NULL;
CREATE INDEX runs_ended ON runs (ended_ms) WHERE ended_ms IS NOT NULL;

-- How far each follower of the log has got: sixteen leases, each of sixteen buckets. holder: the run that reads them. epoch
-- grows whenever a lease is taken, and who saves must name it. Owner: chat.
CREATE TABLE followers (
    name      TEXT NOT NULL,
    lease     BIGINT NOT NULL,
    epoch     BIGINT NOT NULL DEFAULT 0,
    holder    TEXT,
    positions TEXT NOT NULL,
    PRIMARY KEY (name, lease)
) WITHOUT ROWID;

-- Which runs would take leases of a follower. Owner: chat.
CREATE TABLE follower_runs (
    name TEXT NOT NULL,
    run  TEXT NOT NULL,
    PRIMARY KEY (name, run)
) WITHOUT ROWID;

-- Followers ask which conversations changed behind a position. What is said at conversations stands: a message moves
-- last_pos, which is in no index.
CREATE INDEX conversations_changed ON conversations (bucket, changed_pos);
