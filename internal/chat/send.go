package chat

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/workflow"
)

// Draft is a message as a client sends it: not yet accepted, not yet numbered.
type Draft struct {
	ConversationID   string          `json:"conversation_id"`
	Content          *string         `json:"content,omitempty"`
	Type             string          `json:"type,omitempty"`
	ReplyToID        *string         `json:"reply_to_id,omitempty"`
	ClientMessageID  string          `json:"client_message_id,omitempty"`
	Metadata         json.RawMessage `json:"metadata,omitempty"`
	EncryptedContent *string         `json:"encrypted_content,omitempty"`

	// What the contract names and this version cannot keep: refused, since a message without its file
	// or outside its thread is another message. The references leave them out.
	FileID      json.RawMessage `json:"file_id,omitempty" doc:"-"`
	Attachments json.RawMessage `json:"attachments,omitempty" doc:"-"`
	ThreadID    json.RawMessage `json:"thread_id,omitempty" doc:"-"`
}

const clientMessageIDBytesMax = 64

// sending is a draft on its way through the workflow.
type sending struct {
	sender  id.User
	draft   Draft
	conv    id.Conversation
	message Message // its id, hash and flag are fixed before the batch
	refusal error   // what was decided outside and holds unless the message turns out to be a repetition
	done    func(row json.RawMessage, err error)

	// outcome, of the last attempt to commit
	change *Change // set: a new message
	repeat *Message
	role   Role
	err    error

	answered bool
}

// answer calls done, once.
func (s *sending) answer(row json.RawMessage, err error) {
	if !s.answered {
		s.answered = true
		s.done(row, err)
	}
}

// batch is what the steps of the workflow work on: one sending before the commit, all that are committed
// together from there on.
type batch struct {
	items []*sending
	log   *logTx // in steps 3 to 5
	again bool   // an earlier attempt may have committed

	conversations map[id.Conversation]*Conversation // with what a send needs of them
	members       map[memberKey]Member              // likewise, as they were before
	told          []Commit
}

// The seven steps of the tutorial's workflow. Steps 1 and 2 are for one draft; 3 to 5 are one
// transaction for all that wait, in which access is decided again; 6 and 7 happen because it committed,
// and cannot fail the send.
const (
	validateAccess     = "validate-access"
	contentModeration  = "content-moderation"
	createMessage      = "create-message"
	updateConversation = "update-conversation"
	createStatus       = "create-status"
	publishMessage     = "publish-message"
	sendNotifications  = "send-notifications"
)

func (c *Chat) defineSend(m *workflow.Metrics) *workflow.Flow[*batch] {
	return workflow.Define(m, "send-message", "1.0.0",
		workflow.Step[*batch]{Name: validateAccess, Do: c.validateAccess, OnError: c.accessRefused},
		workflow.Step[*batch]{Name: contentModeration, Do: c.moderateContent, OnError: c.moderationFailed},
		workflow.Step[*batch]{Name: createMessage, Do: c.createMessages},
		workflow.Step[*batch]{Name: updateConversation, Do: c.updateConversations},
		workflow.Step[*batch]{Name: createStatus, Do: c.createStatus},
		workflow.Step[*batch]{Name: publishMessage, Do: c.publishMessages},
		workflow.Step[*batch]{Name: sendNotifications, Do: c.sendNotifications},
	)
}

// Send sends a message and returns its row, as its sender sees it, once it is durable. The same
// client_message_id from the same sender in the same conversation answers the first message again.
// Errors: those of [Chat.SendAsync].
func (c *Chat) Send(ctx context.Context, sender id.User, d Draft) (json.RawMessage, error) {
	type answer struct {
		row json.RawMessage
		err error
	}
	answers := make(chan answer, 1)
	c.SendAsync(ctx, sender, d, func(row json.RawMessage, err error) { answers <- answer{row, err} })
	select {
	case a := <-answers:
		return a.row, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// SendAsync is Send without the wait: it calls done exactly once, from any goroutine, and before any
// other connection is told of the message. done must not wait. Calls of one goroutine for one conversation
// are committed in their order.
// Errors: bad_request, not_found (no such conversation, or not a member), forbidden (may not post),
// conflict (client_message_id was used for something else), overloaded, storage_full, unavailable.
func (c *Chat) SendAsync(ctx context.Context, sender id.User, d Draft, done func(row json.RawMessage, err error)) {
	s := &sending{sender: sender, draft: d, done: done}
	if err := c.prepare(s); err != nil {
		done(nil, err)
		return
	}
	if err := c.flow.Run(ctx, validateAccess, contentModeration, &batch{items: []*sending{s}}); err != nil {
		if d.ClientMessageID == "" {
			done(nil, err)
			return
		}
		s.refusal = err // a repetition is answered before anything but lost membership may refuse
	}
	if err := c.sends.Put(int(s.conv.Bucket()), s); err != nil {
		done(nil, errTooMuch)
	}
}

// prepare checks the draft once, and fixes what must not change between attempts.
func (c *Chat) prepare(s *sending) error {
	d := &s.draft
	bad := func(why string) error { return problem.New(problem.BadRequest, why) }
	var err error
	if s.conv, err = id.ParseConversation(d.ConversationID); err != nil {
		return errNotFound
	}
	switch d.Type {
	case "":
		d.Type = "text"
	case "text", "image", "file":
	default:
		return bad("type must be text, image or file.")
	}
	for name, raw := range map[string]json.RawMessage{"file_id": d.FileID, "attachments": d.Attachments, "thread_id": d.ThreadID} {
		if len(raw) > 0 && string(raw) != "null" {
			return bad(name + " cannot be used yet.")
		}
	}
	empty := d.Content == nil || *d.Content == ""
	if empty && (d.EncryptedContent == nil || *d.EncryptedContent == "") || !empty && len(*d.Content) > c.o.ContentBytesMax {
		return badContent(c.o.ContentBytesMax)
	}
	if d.EncryptedContent != nil && len(*d.EncryptedContent) > 2*c.o.ContentBytesMax {
		return bad(fmt.Sprintf("encrypted_content must have at most %d bytes.", 2*c.o.ContentBytesMax))
	}
	if len(d.ClientMessageID) > clientMessageIDBytesMax {
		return bad(fmt.Sprintf("client_message_id must have at most %d bytes.", clientMessageIDBytesMax))
	}
	if len(d.Metadata) > c.o.MetadataBytesMax {
		return bad(fmt.Sprintf("metadata must have at most %d bytes.", c.o.MetadataBytesMax))
	}
	m := Message{
		ID: id.NewMessage(s.conv.Bucket(), c.now()), ConversationID: s.conv, SenderID: s.sender, Content: d.Content, Type: d.Type,
		EncryptedContent: d.EncryptedContent, ClientMessageID: d.ClientMessageID,
	}
	if len(d.Metadata) > 0 && string(d.Metadata) != "null" {
		if m.Metadata, err = compact(d.Metadata); err != nil || m.Metadata[0] != '{' {
			return bad("metadata must be an object.")
		}
	}
	if d.ReplyToID != nil {
		r, err := id.ParseMessage(*d.ReplyToID)
		if err != nil || r.Bucket() != s.conv.Bucket() {
			return errReply
		}
		m.ReplyToID = &r
	}
	if d.ClientMessageID != "" {
		request, err := json.Marshal(d)
		if err != nil {
			return bad("The draft cannot be read.")
		}
		mac := hmac.New(sha256.New, c.requestKey)
		mac.Write(request)
		m.hash = base64.RawStdEncoding.EncodeToString(mac.Sum(nil)[:16])
	}
	s.message = m
	return nil
}

var (
	errReply      = problem.New(problem.BadRequest, "reply_to_id names no message of this conversation.")
	errOtherDraft = problem.New(problem.Conflict, "client_message_id was used for another message.")
	errNotJudged  = &problem.Error{Code: problem.Unavailable, Message: "The message could not be judged now.", RetryAfter: time.Second}
)

// validateAccess, step 1: refuses before anything is spent on the draft. A membership seen before is
// taken for granted here, since the transaction decides again; all else is asked of SQL.
func (c *Chat) validateAccess(ctx context.Context, b *batch) error {
	s := b.items[0]
	if c.access.has(s.conv, s.sender) {
		return nil
	}
	return c.db.Read(ctx, func(tx *sqldb.Tx) error {
		cv, m, err := loadConversation(ctx, tx, s.conv, s.sender)
		if err != nil {
			return err
		}
		c.access.add(s.conv, s.sender)
		return mayPost(&cv, m)
	})
}

// mayPost is the one place that decides who sends.
func mayPost(cv *Conversation, m Member) error {
	switch {
	case !m.Active:
		return errNotFound
	case !m.Role.may(post), cv.Type == Channel && !m.Role.may(postInChannel):
		return errNotAuthorized
	}
	return nil
}

// accessRefused is the workflow's handler of step 1: log and refuse.
func (c *Chat) accessRefused(_ context.Context, b *batch, err error) error {
	c.log.Debug("access validation failed", "user", b.items[0].sender, "conversation", b.items[0].conv, "err", err)
	return err
}

// moderateContent, step 2.
func (c *Chat) moderateContent(ctx context.Context, b *batch) (err error) {
	s := b.items[0]
	if s.draft.Content != nil {
		s.message.flagged, err = c.o.Judge(ctx, *s.draft.Content)
	}
	return err
}

// moderationFailed is the workflow's handler of step 2: log, and let the message through unflagged,
// unless the policy is to refuse what could not be judged.
func (c *Chat) moderationFailed(_ context.Context, b *batch, err error) error {
	s := b.items[0]
	s.message.flagged = false
	return c.unjudged(s.conv, err)
}

func (c *Chat) unjudged(cid id.Conversation, err error) error {
	c.log.Error("moderation failed", "conversation", cid, "refused", c.o.ModerationFailClosed, "err", err)
	if c.o.ModerationFailClosed {
		return errNotJudged
	}
	return nil
}

// commitSends commits a batch, answers its senders and tells the rest.
func (c *Chat) commitSends(ctx context.Context, items []*sending) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("a batch panicked", "messages", len(items), "panic", p, "stack", string(debug.Stack()))
			for _, s := range items {
				s.answer(nil, errors.New("chat: the batch panicked"))
			}
		}
	}()
	b := &batch{items: items}
	err := c.commitBatch(ctx, b)
	if errors.Is(err, sqldb.ErrCommitUnknown) {
		// Ids are fixed before the batch, so a second attempt finds what the first one may have left.
		c.log.Warn("the outcome of a commit is unknown, looking", "err", err)
		b.again = true
		err = c.commitBatch(ctx, b)
	} else if len(items) > 1 && sqldb.IsDataFault(err) {
		// One item's data may have failed all: they are tried singly.
		c.log.Warn("a batch failed and is committed message by message", "messages", len(items), "err", err)
		for _, s := range items {
			c.commitSends(ctx, []*sending{s})
		}
		return
	}
	if err != nil {
		c.log.Error("messages could not be stored", "messages", len(items), "err", err)
		for _, s := range items {
			s.answer(nil, fmt.Errorf("chat: send: %w", err))
		}
		return
	}
	// The sender's acknowledgement goes first.
	for _, s := range items {
		switch {
		case s.err != nil:
			s.answer(nil, s.err)
		case s.repeat != nil:
			row, err := json.Marshal(s.repeat.seenBy(s.sender, s.role))
			s.answer(row, err)
		default:
			s.answer(RowForSender(s.change.Row, s.message.ClientMessageID), nil)
		}
	}
	if err := c.flow.Run(ctx, publishMessage, sendNotifications, b); err != nil {
		c.log.Error("what follows from a commit failed", "err", err) // neither step returns one
	}
}

func (c *Chat) commitBatch(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	buckets := make([]id.Bucket, 0, len(b.items))
	for _, s := range b.items {
		buckets = append(buckets, s.conv.Bucket())
		s.change, s.repeat, s.err = nil, nil, nil
	}
	var err error
	b.told, err = c.change(ctx, true, buckets, func(l *logTx) error {
		b.log = l
		return c.flow.Run(ctx, createMessage, createStatus, b)
	})
	return err
}

// createMessages, step 3: decides again, finds repetitions, numbers and inserts.
func (c *Chat) createMessages(ctx context.Context, b *batch) error {
	now, err := c.loadForSends(ctx, b)
	if err != nil {
		return err
	}
	b.members = now.members
	var rows [][]any
	for _, s := range b.items {
		cv := b.conversations[s.conv]
		member := now.members[memberKey{s.conv, s.sender}]
		s.role = member.Role
		if cv == nil || !member.Active {
			s.err = errNotFound
			c.access.drop(s.conv, s.sender)
			continue
		}
		key := clientKey{s.conv, s.sender, s.message.ClientMessageID}
		if first := now.sent[key]; s.message.ClientMessageID != "" && first != nil {
			if first.hash != s.message.hash {
				s.err = errOtherDraft
				continue
			}
			s.repeat, b.log.found = first, true
			continue
		}
		if own := now.own[s.message.ID]; own != nil {
			s.repeat, b.log.found = own, true
			continue
		}
		if s.err = s.refusal; s.err != nil {
			continue
		}
		if s.err = mayPost(cv, member); s.err != nil {
			continue
		}
		if r := s.message.ReplyToID; r != nil && now.replies[*r] != s.conv {
			s.err = errReply
			continue
		}
		m := s.message
		cv.append(b.log, &m)
		if m.ClientMessageID != "" {
			now.sent[key] = &m
		}
		ch := m.change(MessageNew)
		s.change = &ch
		b.log.tell(ch)
		rows = append(rows, m.insertRow())
	}
	b.log.Queue(insertMessages, rows, nil)
	return nil
}

// updateConversations, step 4: the last message of each conversation that got one.
func (c *Chat) updateConversations(_ context.Context, b *batch) error {
	changed := map[id.Conversation]bool{}
	var rows [][]any
	for _, s := range b.items {
		if s.change != nil && !changed[s.conv] {
			changed[s.conv] = true
			rows = append(rows, b.conversations[s.conv].lastRow())
		}
	}
	b.log.Queue(saveLast, rows, nil)
	return nil
}

// createStatus, step 5: what a sender sends he has read, and all before it. The range log is told only if something of
// somebody else's was passed over: his own messages before these are behind his cursors already.
func (c *Chat) createStatus(_ context.Context, b *batch) error {
	type advance struct{ own, last int64 }
	advances := map[memberKey]advance{}
	for _, s := range b.items {
		if s.change != nil {
			k := memberKey{s.conv, s.sender}
			advances[k] = advance{advances[k].own + 1, s.change.Message.Seq}
		}
	}
	cursors := make([][]any, 0, len(advances))
	var ranges [][]any
	for k, a := range advances {
		m := b.members[k]
		r := Receipt{k.conv, k.user, a.last, a.last}
		cursors = append(cursors, r.cursorRow())
		if a.last-m.ReadSeq > a.own {
			ranges = append(ranges, r.rangeRow(Read, m.ReadSeq+1, a.last, receiptTime(b.log.now, b.conversations[k.conv].LastMessageAt)))
		}
	}
	b.log.Queue(saveCursors, cursors, nil)
	b.log.Queue(insertRanges, ranges, nil)
	return nil
}

// publishMessages, step 6.
func (c *Chat) publishMessages(_ context.Context, b *batch) error {
	c.tell(b.told)
	return nil
}

// sendNotifications, step 7: who is to be notified finds the message in the log; the step is the moment
// from which it can.
func (c *Chat) sendNotifications(_ context.Context, b *batch) error {
	for _, s := range b.items {
		if s.change != nil {
			c.metrics.owed.Inc()
		}
	}
	return nil
}

type memberKey struct {
	conv id.Conversation
	user id.User
}

type clientKey struct {
	conv   id.Conversation
	user   id.User
	client string
}

// current is what a batch must know, read under the locks.
type current struct {
	members map[memberKey]Member
	sent    map[clientKey]*Message         // of the client_message_ids in the batch
	replies map[id.Message]id.Conversation // of the messages replied to that are there
	own     map[id.Message]*Message        // of the batch's own, from an earlier attempt
}

var (
	// What a send needs of its sender and conversation, and no more: a row for each pair.
	selectSenders = sqldb.NewMulti(`SELECT c.id, c.type, c.last_seq, c.last_message_ms, m.user_id, m.role, m.active, m.read_seq FROM {rows} AS v
		JOIN members m ON m.bucket = v.column1 AND m.conversation_id = v.column2 AND m.user_id = v.column3
		JOIN conversations c ON c.bucket = v.column1 AND c.id = v.column2`,
		"BIGINT", "TEXT", "TEXT")
	// PostgreSQL, which believes that a conversation holds few messages, might find them by (bucket, conversation_id, seq) and
	// pass over all the others; hidden in an expression, the conversation is compared behind messages_client only.
	selectSent = sqldb.NewMulti(`SELECT `+messageColumns+` FROM {rows} AS v
		JOIN messages m ON m.bucket = v.column1 AND m.sender_id = v.column3 AND m.client_message_id = v.column4 AND m.conversation_id || '' = v.column2`,
		"BIGINT", "TEXT", "TEXT", "TEXT")
	selectReplies = sqldb.NewMulti(`SELECT m.id, m.conversation_id FROM {rows} AS v JOIN messages m ON m.bucket = v.column1 AND m.id = v.column2 AND NOT m.is_deleted`,
		"BIGINT", "TEXT")
	selectMessages = sqldb.NewMulti(`SELECT `+messageColumns+` FROM {rows} AS v JOIN messages m ON m.bucket = v.column1 AND m.id = v.column2`,
		"BIGINT", "TEXT")
)

// loadForSends reads, each by a unique key, what the batch needs: as many rows as the batch has items,
// however many members the conversations have.
func (c *Chat) loadForSends(ctx context.Context, b *batch) (current, error) {
	now := current{members: map[memberKey]Member{}, sent: map[clientKey]*Message{}, replies: map[id.Message]id.Conversation{}, own: map[id.Message]*Message{}}
	b.conversations = map[id.Conversation]*Conversation{}
	var senders, clients, replies, own [][]any
	for _, s := range b.items {
		bucket := int64(s.conv.Bucket())
		k := memberKey{s.conv, s.sender}
		if _, seen := now.members[k]; !seen {
			now.members[k] = Member{}
			senders = append(senders, []any{bucket, string(s.conv), string(s.sender)})
		}
		if s.message.ClientMessageID != "" {
			clients = append(clients, []any{bucket, string(s.conv), string(s.sender), s.message.ClientMessageID})
		}
		if s.message.ReplyToID != nil {
			replies = append(replies, []any{bucket, string(*s.message.ReplyToID)})
		}
		if b.again {
			own = append(own, []any{bucket, string(s.message.ID)})
		}
	}
	b.log.Queue(selectSenders, senders, func(r sqldb.Row) error {
		var cv Conversation
		var m Member
		err := r.Scan(&cv.ID, &cv.Type, &cv.LastSeq, &cv.LastMessageAt, &m.UserID, &m.Role, &m.Active, &m.ReadSeq)
		now.members[memberKey{cv.ID, m.UserID}] = m
		if b.conversations[cv.ID] == nil {
			b.conversations[cv.ID] = &cv
		}
		return err
	})
	b.log.Queue(selectSent, clients, func(r sqldb.Row) error {
		m, err := scanMessage(r)
		now.sent[clientKey{m.ConversationID, m.SenderID, m.ClientMessageID}] = &m
		return err
	})
	b.log.Queue(selectReplies, replies, func(r sqldb.Row) error {
		var mid id.Message
		var cid id.Conversation
		err := r.Scan(&mid, &cid)
		now.replies[mid] = cid
		return err
	})
	b.log.Queue(selectMessages, own, func(r sqldb.Row) error {
		m, err := scanMessage(r)
		now.own[m.ID] = &m
		return err
	})
	if err := b.log.Flush(ctx); err != nil {
		return now, fmt.Errorf("load for sends: %w", err)
	}
	return now, nil
}
