-- +goose Up

-- What the database says of itself (owner: schema). epoch: drawn when it was made. request_key: what requests are
-- hashed with.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Owner: auth.
CREATE TABLE users (
    id           TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    username     TEXT UNIQUE,
    email        TEXT UNIQUE,
    avatar_url   TEXT,
    role         TEXT NOT NULL DEFAULT 'user',
    metadata     TEXT,
    created_ms   BIGINT NOT NULL,
    updated_ms   BIGINT NOT NULL
);

-- Owner of all that follows: chat. bucket leads every key, so that the tables can be distributed by it.

-- The head of each bucket's log. Whoever writes below holds the row's lock to the commit.
-- The low fillfactor and the absence of other indexes keep the update of last_pos in its page.
CREATE TABLE buckets (
    bucket   BIGINT PRIMARY KEY,
    last_pos BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- pos: where it was made. changed_pos: where its settings last changed. last_pos: the last thing in it.
-- No index holds a position: an update stays in its page.
CREATE TABLE conversations (
    bucket          BIGINT NOT NULL,
    id              TEXT NOT NULL,
    type            TEXT NOT NULL, -- direct, group, channel
    name            TEXT,
    avatar_url      TEXT,
    pair_key        TEXT, -- of a direct one: its two members
    created_by      TEXT NOT NULL,
    settings        TEXT NOT NULL DEFAULT '{}',
    member_count    BIGINT NOT NULL,
    last_seq        BIGINT NOT NULL DEFAULT 0,
    last_message_id TEXT,
    last_message_ms BIGINT,
    pos             BIGINT NOT NULL,
    changed_pos     BIGINT NOT NULL,
    last_pos        BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL,
    updated_ms      BIGINT NOT NULL,
    PRIMARY KEY (bucket, id)
) WITH (fillfactor = 80);

-- Partial, so that nothing else is looked up by it.
CREATE UNIQUE INDEX conversations_pair ON conversations (bucket, pair_key) WHERE pair_key IS NOT NULL;

-- A row stays when the membership ends: active is false then, and changed_pos tells when.
CREATE TABLE members (
    bucket          BIGINT NOT NULL,
    conversation_id TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    role            TEXT NOT NULL,
    active          BOOLEAN NOT NULL,
    joined_seq      BIGINT NOT NULL, -- the last message before he came
    joined_pos      BIGINT NOT NULL,
    changed_pos     BIGINT NOT NULL,
    delivered_seq   BIGINT NOT NULL,
    read_seq        BIGINT NOT NULL,
    joined_ms       BIGINT NOT NULL,
    left_ms         BIGINT,
    PRIMARY KEY (bucket, conversation_id, user_id)
) WITH (fillfactor = 80);

-- The first members of a conversation, which its row names.
CREATE INDEX members_joined ON members (bucket, conversation_id, joined_pos, user_id) WHERE active AND role <> '';

-- Which conversations a user has a row in members for; written with it. Keyed by user: it is the one
-- table here that does not live with its bucket.
CREATE TABLE user_conversations (
    user_id         TEXT NOT NULL,
    bucket          BIGINT NOT NULL,
    conversation_id TEXT NOT NULL,
    PRIMARY KEY (user_id, bucket, conversation_id)
);

-- pos: where it was made, set once. changed_pos: where it was last changed, if ever.
CREATE TABLE messages (
    bucket            BIGINT NOT NULL,
    pos               BIGINT NOT NULL,
    changed_pos       BIGINT,
    conversation_id   TEXT NOT NULL,
    seq               BIGINT NOT NULL,
    id                TEXT NOT NULL,
    sender_id         TEXT NOT NULL,
    type              TEXT NOT NULL, -- text, image, file, system, call
    content           TEXT,
    encrypted_content TEXT,
    file_url          TEXT,
    file_name         TEXT,
    file_size         BIGINT,
    metadata          TEXT,
    reply_to_id       TEXT,
    client_message_id TEXT,
    request_hash      TEXT, -- of the request that client_message_id came with
    is_edited         BOOLEAN NOT NULL DEFAULT FALSE,
    is_deleted        BOOLEAN NOT NULL DEFAULT FALSE,
    is_flagged        BOOLEAN NOT NULL DEFAULT FALSE,
    edited_ms         BIGINT,
    deleted_ms        BIGINT,
    created_ms        BIGINT NOT NULL,
    PRIMARY KEY (bucket, pos),
    UNIQUE (bucket, conversation_id, seq),
    UNIQUE (bucket, id)
);
-- The conversation comes last: see selectSent in package chat.
CREATE UNIQUE INDEX messages_client ON messages (bucket, sender_id, client_message_id, conversation_id) WHERE client_message_id IS NOT NULL;
-- A member catches up by conversation; a reactor reads a whole bucket. What was made in a conversation behind a position
-- needs no index: pos grows with seq.
CREATE INDEX messages_log_changed ON messages (bucket, conversation_id, changed_pos) WHERE changed_pos IS NOT NULL;
CREATE INDEX messages_changed ON messages (bucket, changed_pos) WHERE changed_pos IS NOT NULL;
