package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// The types of a conversation.
const (
	Direct  = "direct"  // two members, for ever; one for a pair
	Group   = "group"   // every member may post
	Channel = "channel" // few post, many read
)

// rowMembersMax is how many members a conversation's row names; member_count always tells them all.
const rowMembersMax = 100

const nameBytesMax = 256

// Conversation is a row of conversations as a member sees it; the names are the tutorial's, followed by ours.
type Conversation struct {
	ID             id.Conversation `json:"id"`
	Type           string          `json:"type" enum:"direct,group,channel"`
	Name           *string         `json:"name"`
	AvatarURL      *string         `json:"avatar_url"`
	ParticipantIDs []id.User       `json:"participant_ids"` // at most 100, in the order of joining
	AdminIDs       []id.User       `json:"admin_ids"`       // those among them who manage members
	LastMessageID  *id.Message     `json:"last_message_id"`
	LastMessageAt  *wire.Time      `json:"last_message_at"`
	CreatedBy      id.User         `json:"created_by"`
	Settings       json.RawMessage `json:"settings"`
	CreatedAt      wire.Time       `json:"created_at"`
	UpdatedAt      wire.Time       `json:"updated_at"`
	MemberCount    int64           `json:"member_count"`
	LastSeq        int64           `json:"last_seq"`
	Pos            int64           `json:"pos"` // of the last change of its settings in its bucket's log
	Role           Role            `json:"role,omitempty"`

	made    int64 // pos of its creation
	lastPos int64 // of the last change of anything in it
}

// append puts m at the end of the conversation: it gives m its seq, its position and its time, which
// never goes back within a conversation.
func (cv *Conversation) append(l *logTx, m *Message) {
	m.Seq = cv.LastSeq + 1
	m.made = l.next(cv.ID.Bucket())
	m.Pos = m.made
	m.CreatedAt = l.now
	if cv.LastMessageAt != nil {
		m.CreatedAt = max(m.CreatedAt, *cv.LastMessageAt)
	}
	m.fill()
	cv.LastSeq, cv.LastMessageID, cv.LastMessageAt, cv.lastPos = m.Seq, &m.ID, &m.CreatedAt, m.Pos
}

// NewConversation is what a client says of a conversation to be made.
type NewConversation struct {
	Type      string
	Name      string
	AvatarURL string
	MemberIDs []string
}

// Create makes a conversation; by is a member of it, and the owner of a group or channel. The direct
// conversation of a pair is made once: later calls find it, and made is false.
// Errors: bad_request.
func (c *Chat) Create(ctx context.Context, by id.User, n NewConversation) (cv Conversation, made bool, err error) {
	ids, err := c.userIDs(n.MemberIDs)
	if err != nil {
		return cv, false, err
	}
	for _, s := range []string{n.Name, n.AvatarURL} {
		if len(s) > nameBytesMax || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return cv, false, problem.New(problem.BadRequest, "name and avatar_url have at most "+strconv.Itoa(nameBytesMax)+" bytes.")
		}
	}
	if i, found := slices.BinarySearch(ids, by); !found {
		ids = slices.Insert(ids, i, by)
	}
	var bucket id.Bucket
	var pair string
	switch n.Type {
	case Direct:
		if len(ids) != 2 {
			return cv, false, problem.New(problem.BadRequest, "A direct conversation has one other member.")
		}
		bucket, pair = id.PairBucket(ids[0], ids[1])
	case Group, Channel:
		bucket = id.RandomBucket()
	default:
		return cv, false, problem.New(problem.BadRequest, "type must be direct, group or channel.")
	}
	err = c.changeAndTell(ctx, bucket, func(l *logTx) error {
		if pair != "" {
			found := false
			if cv, found, err = findPair(ctx, l.Tx, bucket, pair, by); err != nil || found {
				return err
			}
		}
		if err := c.ensure(ctx, l.Tx, ids); err != nil {
			return err
		}
		pos := l.next(bucket)
		cv = Conversation{
			ID: id.NewConversation(bucket, l.now.Time()), Type: n.Type, CreatedBy: by, Settings: emptyObject, CreatedAt: l.now, UpdatedAt: l.now,
			MemberCount: int64(len(ids)), Pos: pos, made: pos, lastPos: pos,
		}
		if n.Name != "" {
			cv.Name = &n.Name
		}
		if n.AvatarURL != "" {
			cv.AvatarURL = &n.AvatarURL
		}
		members := make([]Member, len(ids))
		for i, u := range ids {
			role := Ordinary
			if u == by && pair == "" {
				role = Owner
			}
			members[i] = Member{UserID: u, Role: role, JoinedAt: l.now, Active: true}
		}
		if err := insertConversation(ctx, l, &cv, pair); err != nil {
			return err
		}
		if err := saveMembers(ctx, l, &cv, pos, members); err != nil {
			return err
		}
		row, err := c.conversationRow(ctx, l.Tx, &cv)
		if err != nil {
			return err
		}
		l.tell(Change{Kind: ConversationAdded, Pos: pos, Conversation: cv.ID, Members: members, Row: row, By: by})
		made = true
		return nil
	})
	if err != nil {
		return Conversation{}, false, fmt.Errorf("chat: create conversation: %w", err)
	}
	cv.Role = Ordinary
	if pair == "" {
		cv.Role = Owner
	}
	return cv, made, nil
}

// Conversation is one conversation as its member u sees it. Errors: not_found.
func (c *Chat) Conversation(ctx context.Context, u id.User, conversationID string) (cv Conversation, err error) {
	cid, err := id.ParseConversation(conversationID)
	if err != nil {
		return cv, errNotFound
	}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		var m Member
		if cv, m, err = loadConversation(ctx, tx, cid, u); err != nil {
			return err
		}
		cv.Role = m.Role
		return addParticipants(ctx, tx, &cv)
	})
	if err != nil {
		return Conversation{}, fmt.Errorf("chat: conversation: %w", err)
	}
	return cv, nil
}

// Conversations are those that u is a member of, the newest activity first, and then by id; at most
// limit, after the one that a page ended with ("" for the first page).
func (c *Chat) Conversations(ctx context.Context, u id.User, after string, limit int) (page []Conversation, next string, err error) {
	afterMillis, afterID := int64(1<<62), id.Conversation("")
	if after != "" {
		ms, rest, found := strings.Cut(after, ".")
		afterMillis, err = strconv.ParseInt(ms, 10, 64)
		if !found || err != nil {
			return nil, "", problem.New(problem.BadRequest, "The page cursor cannot be read.")
		}
		if afterID, err = id.ParseConversation(rest); err != nil {
			return nil, "", problem.New(problem.BadRequest, "The page cursor cannot be read.")
		}
	}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		if page, err = listConversations(ctx, tx, u, afterMillis, afterID); err != nil {
			return err
		}
		if len(page) > limit {
			page = page[:limit]
			last := page[limit-1]
			next = strconv.FormatInt(int64(last.activity()), 10) + "." + string(last.ID)
		}
		for i := range page {
			queueParticipants(tx, &page[i], page[i].ID)
		}
		return tx.Flush(ctx)
	})
	if err != nil {
		return nil, "", fmt.Errorf("chat: conversations: %w", err)
	}
	return page, next, nil
}

// activity is the time that the list of conversations is ordered by.
func (cv *Conversation) activity() wire.Time {
	if cv.LastMessageAt != nil {
		return *cv.LastMessageAt
	}
	return cv.CreatedAt
}

// Members are the members of a conversation in the order of their ids, at most limit, after the one
// that a page ended with. Errors: not_found.
func (c *Chat) Members(ctx context.Context, u id.User, conversationID, after string, limit int) (page []Member, next string, err error) {
	cid, err := id.ParseConversation(conversationID)
	if err != nil {
		return nil, "", errNotFound
	}
	err = c.db.Read(ctx, func(tx *sqldb.Tx) error {
		if _, _, err = loadConversation(ctx, tx, cid, u); err != nil {
			return err
		}
		page, err = listMembers(ctx, tx, cid, id.User(after), limit+1)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("chat: members: %w", err)
	}
	if len(page) > limit {
		page = page[:limit]
		next = string(page[limit-1].UserID)
	}
	return page, next, nil
}

// addParticipants fills in the members that a row names.
func addParticipants(ctx context.Context, tx *sqldb.Tx, cv *Conversation) error {
	queueParticipants(tx, cv, cv.ID)
	if err := tx.Flush(ctx); err != nil {
		return fmt.Errorf("add participants: %w", err)
	}
	return nil
}

// RowForMember adds to a conversation's row what a member sees of his own place in it.
func RowForMember(row json.RawMessage, r Role) json.RawMessage {
	return withField(row, "role", string(r))
}

// conversationRow is the row as every member may see it; it fills in cv's members.
func (c *Chat) conversationRow(ctx context.Context, tx *sqldb.Tx, cv *Conversation) (json.RawMessage, error) {
	if err := addParticipants(ctx, tx, cv); err != nil {
		return nil, err
	}
	row := *cv
	row.Role = ""
	return json.Marshal(row)
}
