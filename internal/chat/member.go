package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/wire"
)

// Role is what a member is in a conversation.
type Role string

// The roles, the mightiest first.
const (
	Owner     Role = "owner"
	Admin     Role = "admin"
	Moderator Role = "moderator"
	Ordinary  Role = "member"
	Guest     Role = "guest"
)

// right is one thing that a member may do or not.
type right uint8

const (
	post          right = 1 << iota // send messages
	postInChannel                   // send messages where few speak and many read
	moderate                        // delete others' messages, see what was flagged
	manageMembers                   // add and remove members below oneself
)

// rights is the whole table of who may do what.
var rights = map[Role]right{
	Owner:     post | postInChannel | moderate | manageMembers,
	Admin:     post | postInChannel | moderate | manageMembers,
	Moderator: post | postInChannel | moderate,
	Ordinary:  post,
	Guest:     post,
}

var rank = map[Role]int{Owner: 5, Admin: 4, Moderator: 3, Ordinary: 2, Guest: 1}

func (r Role) may(what right) bool { return rights[r]&what != 0 }

// Member is a user in a conversation.
type Member struct {
	UserID       id.User   `json:"user_id"`
	Role         Role      `json:"role"`
	JoinedAt     wire.Time `json:"joined_at"`
	JoinedSeq    int64     `json:"joined_seq"` // the last message before the membership
	DeliveredSeq int64     `json:"delivered_seq"`
	ReadSeq      int64     `json:"read_seq"`

	Active     bool  `json:"-"` // false: the row of one who was a member once, or no row
	ChangedPos int64 `json:"-"` // where the membership last began or ended
	JoinedPos  int64 `json:"-"` // where it last began; 0: no row
}

// MemberAt tells whether the member was one at position pos of the bucket's log, as far as the row knows: of one who left and
// came back, that is his last time.
func (m Member) MemberAt(pos int64) bool {
	return m.JoinedPos > 0 && m.JoinedPos <= pos && (m.Active || m.ChangedPos > pos)
}

// AddMembers makes members of users; those who are members already stay as they are. Users who are not
// known come into being. It returns the conversation's row.
// Errors: bad_request, not_found, forbidden, conflict (a direct conversation).
func (c *Chat) AddMembers(ctx context.Context, by id.User, conversationID string, users []string, role Role) (Conversation, error) {
	if role == "" {
		role = Ordinary
	}
	if rank[role] == 0 || role == Owner {
		return Conversation{}, problem.New(problem.BadRequest, "role must be admin, moderator, member or guest.")
	}
	ids, err := c.userIDs(users)
	if err != nil {
		return Conversation{}, err
	}
	if len(ids) == 0 {
		return Conversation{}, problem.New(problem.BadRequest, "member_ids must name somebody.")
	}
	return c.changeMembers(ctx, by, conversationID, func(l *logTx, cv *Conversation, actor Member) error {
		if !actor.Role.may(manageMembers) || rank[role] > rank[actor.Role] {
			return errNotAuthorized
		}
		known, err := loadMembers(ctx, l.Tx, cv.ID, ids)
		if err != nil {
			return err
		}
		var added []Member
		for _, u := range ids {
			if m := known[u]; !m.Active {
				added = append(added, Member{UserID: u, Role: role, JoinedAt: l.now, JoinedSeq: cv.LastSeq, Active: true,
					// What was sent before concerns him only by a membership that ended, which has been kept.
					DeliveredSeq: cv.LastSeq, ReadSeq: cv.LastSeq})
			}
		}
		if len(added) == 0 {
			return nil
		}
		if err := c.ensure(ctx, l.Tx, ids); err != nil {
			return err
		}
		pos := l.next(cv.ID.Bucket())
		cv.MemberCount += int64(len(added))
		if err := saveMembers(ctx, l, cv, pos, added); err != nil {
			return err
		}
		row, err := c.conversationRow(ctx, l.Tx, cv)
		if err != nil {
			return err
		}
		l.tell(Change{Kind: MemberAdded, Pos: pos, Conversation: cv.ID, Members: added, Row: row, By: by})
		return c.systemMessage(ctx, l, cv, by, "member-added", added)
	})
}

// RemoveMember ends a membership: another's by right, one's own by leaving. One who is no member is none after it.
// Errors: not_found, forbidden, conflict (a direct conversation, or the last owner).
func (c *Chat) RemoveMember(ctx context.Context, by id.User, conversationID string, user string) (Conversation, error) {
	u, err := id.ParseUser(user)
	if err != nil {
		return Conversation{}, problem.New(problem.BadRequest, "user_id is no user id.")
	}
	return c.changeMembers(ctx, by, conversationID, func(l *logTx, cv *Conversation, actor Member) error {
		gone, err := loadMember(ctx, l.Tx, cv.ID, u)
		if err != nil {
			return err
		}
		if u != by && (!actor.Role.may(manageMembers) || rank[gone.Role] >= rank[actor.Role]) {
			return errNotAuthorized
		}
		if !gone.Active {
			return nil
		}
		if gone.Role == Owner {
			owners, err := countOwners(ctx, l.Tx, cv.ID)
			if err != nil {
				return err
			}
			if owners == 1 && cv.MemberCount > 1 {
				return problem.New(problem.Conflict, "The last owner cannot leave while others are there.")
			}
		}
		pos := l.next(cv.ID.Bucket())
		gone.Active = false
		cv.MemberCount--
		if err := saveMembers(ctx, l, cv, pos, []Member{gone}); err != nil {
			return err
		}
		l.tell(Change{Kind: MemberRemoved, Pos: pos, Conversation: cv.ID, Members: []Member{gone}, By: by})
		return c.systemMessage(ctx, l, cv, by, "member-removed", []Member{gone})
	})
}

// changeMembers loads a conversation and who acts on it under the lock of its bucket, and runs f.
func (c *Chat) changeMembers(ctx context.Context, by id.User, conversationID string, f func(*logTx, *Conversation, Member) error) (Conversation, error) {
	cid, err := id.ParseConversation(conversationID)
	if err != nil {
		return Conversation{}, errNotFound
	}
	var cv Conversation
	err = c.changeAndTell(ctx, cid.Bucket(), func(l *logTx) error {
		var actor Member
		if cv, actor, err = loadConversation(ctx, l.Tx, cid, by); err != nil {
			return err
		}
		if cv.Type == Direct {
			return problem.New(problem.Conflict, "The members of a direct conversation do not change.")
		}
		if err := f(l, &cv, actor); err != nil {
			return err
		}
		return addParticipants(ctx, l.Tx, &cv)
	})
	if err != nil {
		return Conversation{}, fmt.Errorf("chat: change members: %w", err)
	}
	return cv, nil
}

// systemMessage leaves a message in the conversation that tells its members what was done.
func (c *Chat) systemMessage(ctx context.Context, l *logTx, cv *Conversation, by id.User, kind string, who []Member) error {
	users := make([]id.User, 0, min(len(who), rowMembersMax))
	for _, m := range who[:min(len(who), rowMembersMax)] {
		users = append(users, m.UserID)
	}
	metadata, err := json.Marshal(map[string]any{"kind": kind, "user_ids": users, "count": len(who)})
	if err != nil {
		return err
	}
	m := &Message{ID: id.NewMessage(cv.ID.Bucket(), l.now.Time()), ConversationID: cv.ID, SenderID: by, Type: "system", Metadata: metadata}
	cv.append(l, m)
	l.Queue(insertMessages, [][]any{m.insertRow()}, nil)
	l.Queue(saveLast, [][]any{cv.lastRow()}, nil)
	l.QueueExec(passSystemMessage, int64(cv.ID.Bucket()), string(cv.ID), string(by), m.Seq, m.Seq-1)
	l.tell(m.change(MessageNew))
	return nil
}

// userIDs parses, sorts and bounds a list of users.
func (c *Chat) userIDs(users []string) ([]id.User, error) {
	if len(users) > c.o.MembersPerRequestMax {
		return nil, problem.New(problem.BadRequest, fmt.Sprintf("member_ids holds more than %d users.", c.o.MembersPerRequestMax))
	}
	ids := make([]id.User, 0, len(users))
	for _, s := range users {
		u, err := id.ParseUser(s)
		if err != nil {
			return nil, problem.New(problem.BadRequest, "member_ids holds what is no user id.")
		}
		ids = append(ids, u)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
