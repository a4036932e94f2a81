package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"parley/internal/id"
	"parley/internal/sqldb"
)

// conversationColumns are what scanConversation expects, of a table named c.
const conversationColumns = `c.id, c.type, c.name, c.avatar_url, c.last_message_id, c.last_message_ms, c.created_by, c.settings,
	c.created_ms, c.updated_ms, c.member_count, c.last_seq, c.changed_pos, c.pos, c.last_pos`

func scanConversation(rows sqldb.Row, more ...any) (Conversation, error) {
	var cv Conversation
	var settings string
	err := rows.Scan(append([]any{&cv.ID, &cv.Type, &cv.Name, &cv.AvatarURL, &cv.LastMessageID, &cv.LastMessageAt, &cv.CreatedBy, &settings,
		&cv.CreatedAt, &cv.UpdatedAt, &cv.MemberCount, &cv.LastSeq, &cv.Pos, &cv.made, &cv.lastPos}, more...)...)
	cv.Settings = json.RawMessage(settings)
	return cv, err
}

// memberColumns are what scanMember expects, of a table named m.
const memberColumns = `m.user_id, m.role, m.active, m.joined_seq, m.joined_pos, m.changed_pos, m.delivered_seq, m.read_seq, m.joined_ms`

func (m *Member) scan() []any {
	return []any{&m.UserID, &m.Role, &m.Active, &m.JoinedSeq, &m.JoinedPos, &m.ChangedPos, &m.DeliveredSeq, &m.ReadSeq, &m.JoinedAt}
}

func scanMember(rows sqldb.Row) (Member, error) {
	var m Member
	return m, rows.Scan(m.scan()...)
}

// selectConversation is served by the primary keys.
const selectConversation = `SELECT ` + conversationColumns + `, ` + memberColumns + `
	FROM conversations c JOIN members m ON m.bucket = c.bucket AND m.conversation_id = c.id
	WHERE c.bucket = $1 AND c.id = $2 AND m.user_id = $3 AND m.active`

// loadConversation returns a conversation and the membership of u in it. Errors: errNotFound, the same by the same path
// whether there is no such conversation or u is no member of it.
func loadConversation(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, u id.User) (cv Conversation, m Member, err error) {
	found := false
	err = tx.Each(ctx, func(rows sqldb.Row) error {
		found = true
		cv, err = scanConversation(rows, m.scan()...)
		return err
	}, selectConversation, int64(cid.Bucket()), string(cid), string(u))
	if err != nil {
		return cv, m, fmt.Errorf("load conversation: %w", err)
	}
	if !found {
		return cv, m, errNotFound
	}
	return cv, m, nil
}

// queueConversation has a conversation read as its member u sees it, with the members that its row names; cv and m are
// filled in by the next flush.
func queueConversation(tx *sqldb.Tx, cid id.Conversation, u id.User, cv *Conversation, m *Member) {
	tx.QueueEach(func(row sqldb.Row) (err error) {
		*cv, err = scanConversation(row, m.scan()...)
		cv.Role, cv.ParticipantIDs, cv.AdminIDs = m.Role, []id.User{}, []id.User{}
		return err
	}, selectConversation, int64(cid.Bucket()), string(cid), string(u))
	queueParticipants(tx, cv, cid)
}

// loadMember is served by the primary key; a Member without Active when there is none.
func loadMember(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, u id.User) (Member, error) {
	members, err := loadMembers(ctx, tx, cid, []id.User{u})
	return members[u], err
}

var selectMembers = sqldb.NewMulti(`SELECT `+memberColumns+` FROM {rows} AS v JOIN members m ON m.bucket = v.column1 AND m.conversation_id = v.column2 AND m.user_id = v.column3`,
	"BIGINT", "TEXT", "TEXT")

// loadMembers finds the rows of users, those of ended memberships too, by the primary key.
func loadMembers(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, users []id.User) (map[id.User]Member, error) {
	rows := make([][]any, len(users))
	for i, u := range users {
		rows[i] = []any{int64(cid.Bucket()), string(cid), string(u)}
	}
	found := make(map[id.User]Member, len(users))
	err := tx.EachMulti(ctx, func(r sqldb.Row) error {
		m, err := scanMember(r)
		found[m.UserID] = m
		return err
	}, selectMembers, rows)
	if err != nil {
		return nil, fmt.Errorf("load members: %w", err)
	}
	return found, nil
}

// selectFirst are the first who joined, by the index members_joined, whose condition on the role keeps it from being taken
// for anything else.
const selectFirst = `SELECT m.user_id, m.role FROM members m WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.active AND m.role <> ''
	ORDER BY m.joined_pos, m.user_id LIMIT $3`

// queueParticipants has the members read that a conversation's row names; the next flush fills them in.
func queueParticipants(tx *sqldb.Tx, cv *Conversation, cid id.Conversation) {
	cv.ParticipantIDs, cv.AdminIDs = []id.User{}, []id.User{}
	scan := func(row sqldb.Row) error {
		var u id.User
		var r Role
		err := row.Scan(&u, &r)
		cv.ParticipantIDs = append(cv.ParticipantIDs, u)
		if r.may(manageMembers) {
			cv.AdminIDs = append(cv.AdminIDs, u)
		}
		return err
	}
	tx.QueueEach(scan, selectFirst, int64(cid.Bucket()), string(cid), rowMembersMax)
}

// listMembers is served by the primary key.
func listMembers(ctx context.Context, tx *sqldb.Tx, cid id.Conversation, after id.User, limit int) ([]Member, error) {
	return selectMemberPage(ctx, tx, `SELECT `+memberColumns+` FROM members m WHERE m.bucket = $1 AND m.conversation_id = $2 AND m.user_id > $3 AND m.active
		ORDER BY m.user_id LIMIT $4`, int64(cid.Bucket()), string(cid), string(after), limit)
}

func selectMemberPage(ctx context.Context, tx *sqldb.Tx, query string, args ...any) ([]Member, error) {
	members := []Member{}
	err := tx.Each(ctx, func(rows sqldb.Row) error {
		m, err := scanMember(rows)
		members = append(members, m)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	return members, nil
}

// countOwners is bounded by the members of one conversation.
func countOwners(ctx context.Context, tx *sqldb.Tx, cid id.Conversation) (n int64, err error) {
	_, err = tx.One(ctx, []any{&n}, `SELECT COUNT(*) FROM members WHERE bucket = $1 AND conversation_id = $2 AND active AND role = 'owner'`,
		int64(cid.Bucket()), string(cid))
	if err != nil {
		return 0, fmt.Errorf("count owners: %w", err)
	}
	return n, nil
}

// findPair is served by the index conversations_pair.
func findPair(ctx context.Context, tx *sqldb.Tx, b id.Bucket, pair string, u id.User) (cv Conversation, found bool, err error) {
	var cid id.Conversation
	found, err = tx.One(ctx, []any{&cid}, `SELECT id FROM conversations WHERE bucket = $1 AND pair_key = $2`, int64(b), pair)
	if err != nil || !found {
		return cv, false, err
	}
	if cv, _, err = loadConversation(ctx, tx, cid, u); err != nil {
		return cv, false, err
	}
	queueParticipants(tx, &cv, cid)
	return cv, true, tx.Flush(ctx)
}

// Of the places given, those that were active before a time, the latest first: by the primary keys.
var selectActive = sqldb.NewMulti(`SELECT `+conversationColumns+`, m.role FROM {rows} AS v CROSS JOIN members m CROSS JOIN conversations c
	WHERE m.bucket = v.column1 AND m.conversation_id = v.column2 AND m.user_id = v.column3 AND m.active
	AND c.bucket = v.column1 AND c.id = v.column2
	AND (COALESCE(c.last_message_ms, c.created_ms) < v.column4 OR (COALESCE(c.last_message_ms, c.created_ms) = v.column4 AND c.id < v.column5))
	ORDER BY COALESCE(c.last_message_ms, c.created_ms) DESC, c.id DESC LIMIT 101`,
	"BIGINT", "TEXT", "TEXT", "BIGINT", "TEXT")

// conversationsMax is how many conversations a page of the list has at the most; selectActive reads one more.
const conversationsMax = 100

// listConversations reads where the caller has memberships, and then the activity of each conversation by its bucket:
// bounded by the number of the caller's conversations. At most conversationsMax + 1 are returned.
func listConversations(ctx context.Context, tx *sqldb.Tx, u id.User, beforeMillis int64, before id.Conversation) ([]Conversation, error) {
	places, err := placesOf(ctx, tx, u)
	if err != nil {
		return nil, err
	}
	rows := make([][]any, len(places))
	for i, cid := range places {
		rows[i] = []any{int64(cid.Bucket()), string(cid), string(u), beforeMillis, string(before)}
	}
	page := []Conversation{}
	err = tx.EachMulti(ctx, func(row sqldb.Row) error {
		var role Role
		cv, err := scanConversation(row, &role)
		cv.Role = role
		page = append(page, cv)
		return err
	}, selectActive, rows)
	if err != nil {
		return nil, fmt.Errorf("list conversations: %w", err)
	}
	// A long list is read in parts, each of them in order.
	slices.SortFunc(page, func(a, b Conversation) int {
		return cmp.Or(cmp.Compare(b.activity(), a.activity()), cmp.Compare(b.ID, a.ID))
	})
	return page[:min(len(page), conversationsMax+1)], nil
}

func insertConversation(ctx context.Context, l *logTx, cv *Conversation, pair string) error {
	var pairKey any
	if pair != "" {
		pairKey = pair
	}
	_, err := l.Exec(ctx, `INSERT INTO conversations (bucket, id, type, name, avatar_url, pair_key, created_by, settings, member_count, pos, changed_pos, last_pos, created_ms, updated_ms)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $10, $11, $11)`,
		int64(cv.ID.Bucket()), string(cv.ID), cv.Type, text(cv.Name), text(cv.AvatarURL), pairKey, string(cv.CreatedBy), string(cv.Settings),
		cv.MemberCount, cv.made, int64(cv.CreatedAt))
	if err != nil {
		return fmt.Errorf("insert conversation: %w", err)
	}
	return nil
}

// moveConversation keeps last_pos at the last change of anything in the conversation.
func moveConversation(ctx context.Context, l *logTx, cid id.Conversation, pos int64) error {
	_, err := l.Exec(ctx, `UPDATE conversations SET last_pos = $3 WHERE bucket = $1 AND id = $2`, int64(cid.Bucket()), string(cid), pos)
	return err
}

var upsertMembers = sqldb.NewMulti(`INSERT INTO members (bucket, conversation_id, user_id, role, active, joined_seq, joined_pos, changed_pos, delivered_seq, read_seq, joined_ms, left_ms)
	SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12 FROM {rows} AS v WHERE column1 IS NOT NULL
	ON CONFLICT (bucket, conversation_id, user_id) DO UPDATE SET role = excluded.role, active = excluded.active, joined_seq = excluded.joined_seq,
	joined_pos = excluded.joined_pos, changed_pos = excluded.changed_pos, delivered_seq = excluded.delivered_seq, read_seq = excluded.read_seq,
	joined_ms = excluded.joined_ms, left_ms = excluded.left_ms`,
	"BIGINT", "TEXT", "TEXT", "TEXT", "BOOLEAN", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT")

var insertUserConversations = sqldb.NewMulti(`INSERT INTO user_conversations (user_id, bucket, conversation_id)
	SELECT column1, column2, column3 FROM {rows} AS v WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING`, "TEXT", "BIGINT", "TEXT")

// saveMembers writes memberships that began or ended at pos, the conversation's member count, and where
// its settings last changed (its row names its members).
func saveMembers(ctx context.Context, l *logTx, cv *Conversation, pos int64, members []Member) error {
	bucket := int64(cv.ID.Bucket())
	rows := make([][]any, len(members))
	mine := make([][]any, 0, len(members))
	var past [][]any
	for i, m := range members {
		joinedPos, left := m.JoinedPos, any(nil)
		if m.Active {
			joinedPos = pos
			mine = append(mine, []any{string(m.UserID), bucket, string(cv.ID)})
		} else {
			left = int64(l.now)
			past = pastRows(past, cv, m)
		}
		rows[i] = []any{bucket, string(cv.ID), string(m.UserID), string(m.Role), m.Active, m.JoinedSeq, joinedPos, pos, m.DeliveredSeq, m.ReadSeq, int64(m.JoinedAt), left}
	}
	l.Queue(upsertMembers, rows, nil)
	l.Queue(insertUserConversations, mine, nil)
	l.Queue(insertPastMembers, past, nil)
	cv.Pos, cv.lastPos, cv.UpdatedAt = pos, pos, l.now
	_, err := l.Exec(ctx, `UPDATE conversations SET member_count = $3, changed_pos = $4, last_pos = $4, updated_ms = $5 WHERE bucket = $1 AND id = $2`,
		bucket, string(cv.ID), cv.MemberCount, pos, int64(l.now))
	if err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	return nil
}

// saveLast moves the end of conversations to which messages were appended.
var saveLast = sqldb.NewMulti(`UPDATE conversations SET last_seq = v.column3, last_message_id = v.column4, last_message_ms = v.column5, last_pos = v.column6, updated_ms = v.column5
	FROM {rows} AS v WHERE conversations.bucket = v.column1 AND conversations.id = v.column2`,
	"BIGINT", "TEXT", "BIGINT", "TEXT", "BIGINT", "BIGINT")

func (cv *Conversation) lastRow() []any {
	return []any{int64(cv.ID.Bucket()), string(cv.ID), cv.LastSeq, string(*cv.LastMessageID), int64(*cv.LastMessageAt), cv.lastPos}
}
