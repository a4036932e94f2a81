-- +goose Up

-- How the cursors of members advanced: by one row from before from_seq to to_seq, at once. kind: read, or delivered. What was
-- read before it was delivered by itself has no delivered row: reading delivers. A member's own messages may stand in no
-- row. The key finds when a message reached a member: by the first row of his that reaches its seq. Owner: chat.
CREATE TABLE receipts (
    bucket          BIGINT NOT NULL,
    conversation_id TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    kind            TEXT NOT NULL,
    from_seq        BIGINT NOT NULL,
    to_seq          BIGINT NOT NULL,
    at_ms           BIGINT NOT NULL,
    PRIMARY KEY (bucket, conversation_id, user_id, kind, to_seq)
) WITHOUT ROWID;

-- Memberships that ended, each with the receipts of its last moment: who left keeps them, and who comes back begins anew in
-- members. One in which nothing was sent is not kept. Owner: chat.
CREATE TABLE past_members (
    bucket          BIGINT NOT NULL,
    conversation_id TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    joined_seq      BIGINT NOT NULL, -- the last message before he came
    left_seq        BIGINT NOT NULL, -- the last one before he left
    delivered_seq   BIGINT NOT NULL,
    read_seq        BIGINT NOT NULL,
    PRIMARY KEY (bucket, conversation_id, user_id, left_seq)
) WITHOUT ROWID;

-- What came before. Only sends advanced a cursor until now, so each stands at a message of its member's own.
INSERT INTO past_members (bucket, conversation_id, user_id, joined_seq, left_seq, delivered_seq, read_seq)
SELECT bucket, conversation_id, user_id, joined_seq, left_seq, delivered_seq, read_seq FROM (
    SELECT m.bucket, m.conversation_id, m.user_id, m.joined_seq, m.delivered_seq, m.read_seq, (
        SELECT COALESCE(MAX(s.seq), 0) FROM messages s
        WHERE s.bucket = m.bucket AND s.conversation_id = m.conversation_id AND s.pos < m.changed_pos
    ) AS left_seq FROM members m WHERE NOT m.active
) AS ended WHERE left_seq > joined_seq;

INSERT INTO receipts (bucket, conversation_id, user_id, kind, from_seq, to_seq, at_ms)
SELECT m.bucket, m.conversation_id, m.user_id, 'read', m.joined_seq + 1, m.read_seq, s.created_ms FROM members m
JOIN messages s ON s.bucket = m.bucket AND s.conversation_id = m.conversation_id AND s.seq = m.read_seq
WHERE m.read_seq > m.joined_seq;
