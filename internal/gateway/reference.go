package gateway

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"parley/internal/chat"
)

// serverEvents is what the server sends, for the reference.
var serverEvents = []struct {
	Name, Doc string
	payload   reflect.Type
}{
	{"authenticated", "The socket has signed in and its rooms are joined. cursor is its place: the one it gave, or that of now.", reflect.TypeFor[authenticated]()},
	{"error", "An event failed. code and message are those of the acknowledgement.", reflect.TypeFor[failureEvent]()},
	{"new-message", "A message was sent in a conversation of the user: its whole row, once to each socket. After signing in with a cursor: one that was missed.", reflect.TypeFor[chat.Message]()},
	{"message-updated", "A message was edited: its whole row.", reflect.TypeFor[chat.Message]()},
	{"message-deleted", "A message was deleted for everyone.", reflect.TypeFor[chat.Deleted]()},
	{"conversation-added", "The user is a member of a conversation from here on: its row. It comes before any other event of the conversation.", reflect.TypeFor[chat.Conversation]()},
	{"conversation-updated", "After signing in with a cursor: the conversation's row or members changed meanwhile.", reflect.TypeFor[chat.Conversation]()},
	{"conversation-removed", "The user is no longer a member.", reflect.TypeFor[conversationRemoved]()},
	{"member-added", "Another became a member.", reflect.TypeFor[memberChanged]()},
	{"member-removed", "Another is no longer a member.", reflect.TypeFor[memberChanged]()},
	{"cursor", "Everything before it has been told: a client that comes back with this cursor misses nothing after it.", reflect.TypeFor[cursorEvent]()},
	{"sync_required", "Too much was missed to be replayed: page with sync from this cursor. With reset, the cursor given belongs to another history: start over from REST.", reflect.TypeFor[cursorEvent]()},
	{"token-expiring", "The token ends soon: authenticate with a fresh one, or be disconnected.", reflect.TypeFor[tokenExpiring]()},
}

// Reference writes docs/reference/events.md.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Events\n\nThis page is generated from the tables in `internal/gateway` (`go test ./internal/gateway -update`).\n\n" +
		"Clients connect with any official Socket.IO client (protocol 5) to the namespace `/` at `" + Path + "`. Every event takes one object and, if the client wants, an acknowledgement:\n" +
		"`{ok: true, …}` or `{ok: false, error: {code, message, retry_after_ms?, request_id?}}`; a failure also comes back as the event `error`.\n\n" +
		"## From the client\n\n### authenticate\n\nSigns the socket in: a token may come here, or as `auth: {token, cursor?}` when connecting. " +
		"What is sent before is held until the answer. Acknowledged with `user_id, cursor`.\n\n")
	fields(&b, reflect.TypeFor[authenticatePayload]())
	for _, e := range events {
		fmt.Fprintf(&b, "### %s\n\n%s", e.Name, e.Doc)
		if e.answer != "" {
			fmt.Fprintf(&b, " Acknowledged with `%s`.", e.answer)
		}
		b.WriteString("\n\n")
		fields(&b, e.payload)
	}
	b.WriteString("## From the server\n\nBehind its payload an event that changes the client's place has one more argument, a string: the offset, by which an official client " +
		"recovers its state when it comes back. It means nothing to an application.\n\n")
	for _, e := range serverEvents {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", e.Name, e.Doc)
		fields(&b, e.payload)
	}
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

// fields writes the JSON members of a payload.
func fields(b *strings.Builder, t reflect.Type) {
	b.WriteString("| field | type |\n|---|---|\n")
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" || f.Tag.Get("doc") == "-" {
			continue
		}
		if strings.Contains(options, "omitempty") {
			name += "?"
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, typeName(f.Type))
	}
	b.WriteByte('\n')
}

func typeName(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem()) + " or null"
	case t.String() == "wire.Time":
		return "time"
	case t.String() == "json.RawMessage":
		return "object or null"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.String:
		return "string"
	default:
		return "integer"
	}
}
