-- +goose Up

-- Where the heads of all logs stood at a time, as a cursor: for clients that can say when they last heard of us, but
-- not where. One for each few seconds in which something was committed; the newest 512 are kept. Owner: chat.
CREATE TABLE checkpoints (
    at_ms  BIGINT PRIMARY KEY,
    cursor TEXT NOT NULL
);
