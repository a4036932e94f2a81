package gateway

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"

	"parley/internal/chat"
	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/wire"
	"parley/socketio"
)

// clientEvent is one event that a client may send.
type clientEvent struct {
	Name string
	Doc  string // for the reference
	handler
}

// handler does what an event asks for.
type handler struct {
	do      func(g *Gateway, ctx context.Context, s *session, e *socketio.Event)
	payload reflect.Type
	answer  string // what the acknowledgement holds beside ok
}

// events is the table of what a client may send, and all there is: a new event is a line here, a method
// and a scenario. authenticate alone is possible before signing in; see Gateway.authenticate.
var events = []clientEvent{
	{"send-message", "Sends a message, and is acknowledged once it is durable. The same client_message_id answers the first message again.",
		handler{(*Gateway).sendMessage, reflect.TypeFor[chat.Draft](), "message"}},
	{"edit-message", "Replaces the text of one's own message.", answered("message", (*Gateway).editMessage)},
	{"delete-message", "Deletes a message for everyone: one's own, or another's by right.", answered("message", (*Gateway).deleteMessage)},
	{"join-conversation", "Switches the delivery of a conversation to this socket on.", answered("", (*Gateway).joinConversation)},
	{"leave-conversation", "Switches the delivery of a conversation to this socket off, until it reconnects.", answered("", (*Gateway).leaveConversation)},
	{"sync", "Answers one page of what changed since a cursor; without one, the cursor of now.", answered("changes, cursor, has_more, reset", (*Gateway).sync)},
}

var eventByName = func() map[string]*clientEvent {
	m := make(map[string]*clientEvent, len(events))
	for i := range events {
		m[events[i].Name] = &events[i]
	}
	return m
}()

// answered makes a handler of a method that takes a decoded payload and returns what the acknowledgement
// holds beside ok. It waits for the sends that came before it.
func answered[T any](answer string, f func(g *Gateway, ctx context.Context, s *session, payload T) (any, error)) handler {
	return handler{payload: reflect.TypeFor[T](), answer: answer, do: func(g *Gateway, ctx context.Context, s *session, e *socketio.Event) {
		s.waitSends(0)
		var payload T
		if err := decode(e, &payload); err != nil {
			g.fail(s, e, err, "")
			return
		}
		answer, err := f(g, ctx, s, payload)
		if err != nil {
			g.fail(s, e, err, "")
			return
		}
		g.ack(e, answer)
	}}
}

func (g *Gateway) sendMessage(ctx context.Context, s *session, e *socketio.Event) {
	var d chat.Draft
	if err := decode(e, &d); err != nil {
		s.waitSends(0)
		g.fail(s, e, err, "")
		return
	}
	s.waitSends(sendingMax - 1)
	s.sendBegun()
	g.parts.Chat.SendAsync(ctx, s.user.id, d, func(row json.RawMessage, err error) {
		defer s.sendAnswered()
		if err != nil {
			g.fail(s, e, err, d.ClientMessageID)
			return
		}
		if e.WantsAck() {
			b := make([]byte, 0, len(row)+32)
			b = append(b, `[{"ok":true,"message":`...)
			b = append(b, row...)
			_ = e.AckRaw(append(b, `}]`...)) // fails only when the socket is gone
		}
	})
}

type messageAnswer struct {
	Message chat.Message `json:"message"`
}

func (g *Gateway) editMessage(ctx context.Context, s *session, p struct {
	MessageID string `json:"message_id"`
	Content   string `json:"content"`
}) (any, error) {
	m, err := g.parts.Chat.Edit(ctx, s.user.id, p.MessageID, p.Content)
	return messageAnswer{m}, err
}

func (g *Gateway) deleteMessage(ctx context.Context, s *session, p struct {
	MessageID string `json:"message_id"`
	For       string `json:"for,omitempty"`
}) (any, error) {
	if p.For != "" && p.For != "everyone" {
		return nil, problem.New(problem.BadRequest, "for must be everyone.")
	}
	m, err := g.parts.Chat.Delete(ctx, s.user.id, p.MessageID)
	return messageAnswer{m}, err
}

type conversationPayload struct {
	ConversationID string `json:"conversation_id"`
}

func (g *Gateway) joinConversation(ctx context.Context, s *session, p conversationPayload) (any, error) {
	cv, err := g.parts.Chat.Conversation(ctx, s.user.id, p.ConversationID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = slices.DeleteFunc(s.off, func(c id.Conversation) bool { return c == cv.ID })
	return nil, nil
}

func (g *Gateway) leaveConversation(ctx context.Context, s *session, p conversationPayload) (any, error) {
	cv, err := g.parts.Chat.Conversation(ctx, s.user.id, p.ConversationID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.off, cv.ID) { // bounded by the user's conversations
		s.off = append(s.off, cv.ID)
	}
	return nil, nil
}

func (g *Gateway) sync(ctx context.Context, s *session, p struct {
	Cursor string `json:"cursor,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}) (any, error) {
	page, err := g.parts.Chat.Sync(ctx, s.user.id, p.Cursor, p.Limit)
	if err == nil && !page.HasMore {
		s.mu.Lock()
		s.behind = false
		s.mu.Unlock()
	}
	return page, err
}

// decode reads the payload of an event: its first argument, an object.
func decode(e *socketio.Event, v any) error {
	if len(e.Args) == 0 || len(e.Args[0]) == 0 || e.Args[0][0] != '{' {
		return problem.New(problem.BadRequest, "The event takes one object.")
	}
	return wire.Decode(e.Args[0], v)
}
