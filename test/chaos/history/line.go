package history

// Phase says what a line is about.
type Phase string

// The phases. An operation has an Invoke and at most one of OK, Fail and Unknown; without one its outcome is unknown, too.
const (
	Invoke  Phase = "invoke"
	OK      Phase = "ok"
	Fail    Phase = "fail" // the server refused it: see Line.Code
	Unknown Phase = "unknown"
	Event   Phase = "event" // of the server, on a connection
	Mark    Phase = "mark"  // of the harness
)

// The kinds of operations. Those of Event lines are the names of the events.
const (
	Create  = "create"  // a conversation, of User and Users
	Send    = "send"    // Name; ClientMessageID
	Edit    = "edit"    // Message; Version
	Delete  = "delete"  // Message
	AddTo   = "add"     // Users become members
	Remove  = "remove"  // Users[0] is none any more
	History = "history" // a page: Before or After, Limit; Rows
	Members = "members" // Receipts
	Sync    = "sync"    // Cursor ("": gives one); Rows, Cursor, More
	Connect = "connect" // a session: Cursor ("": a client that has none); OK when authenticated came
)

// The kinds of Mark lines.
const (
	Disconnected = "disconnected" // the session is over; none of its events follows
	Harm         = "harm"         // Fault begins; it may have effect from here on
	Harmed       = "harmed"       // Fault has full effect
	Heal         = "heal"         // Fault is being undone
	Healed       = "healed"       // Fault is undone; if none is left, sends are to be acknowledged within Millis
	Settled      = "settled"      // no operation from before this line whose answer never came can still be under way
	Quiet        = "quiet"        // every live session has everything, and nothing is changed from here on
)

// Line is one line of a record. Which fields are set depends on Phase and Kind.
type Line struct {
	N      int64 `json:"-"`  // the number of the line, from 1
	Micros int64 `json:"at"` // since the record began, by a clock that only goes forward

	Phase Phase  `json:"phase"`
	Kind  string `json:"kind"`
	Op    int64  `json:"op,omitempty"` // ties the lines of an operation together

	User    string `json:"user,omitempty"`
	Device  string `json:"device,omitempty"`  // what keeps a cursor from one connection to the next
	Session int64  `json:"session,omitempty"` // one connection; 0: REST
	Node    string `json:"node,omitempty"`

	Conversation    string   `json:"conversation,omitempty"`
	Message         string   `json:"message,omitempty"` // its id
	Seq             int64    `json:"seq,omitempty"`
	Name            string   `json:"name,omitempty"`    // of a send, given by the harness: the text begins with it
	Version         int64    `json:"version,omitempty"` // of an edit; the text says it, too. 0: as it was sent
	ClientMessageID string   `json:"client_message_id,omitempty"`
	Users           []string `json:"users,omitempty"`

	Code   string `json:"code,omitempty"` // why it failed
	Cursor string `json:"cursor,omitempty"`
	Before int64  `json:"before,omitempty"`
	After  int64  `json:"after,omitempty"`
	Limit  int    `json:"limit,omitempty"`
	More   bool   `json:"more,omitempty"`
	Reset  bool   `json:"reset,omitempty"`
	Final  bool   `json:"final,omitempty"` // a page that is read after Quiet; all of them together are the final history of its node

	Rows     []Row     `json:"rows,omitempty"`
	Receipts []Receipt `json:"receipts,omitempty"`

	Fault     string `json:"fault,omitempty"`
	AckMillis int64  `json:"ack_millis,omitempty"` // of Harmed: the least time for an acknowledgement; of Healed: the most
}

// The kinds of a Row that is no message: what sync says of the caller's own membership.
const (
	Joined = "joined"
	Left   = "left"
)

// Row is a message as the server showed it, or a change of the caller's membership.
type Row struct {
	Kind         string   `json:"kind,omitempty"` // empty: a message
	Conversation string   `json:"conversation"`
	ID           string   `json:"id,omitempty"`
	Seq          int64    `json:"seq,omitempty"`
	Pos          int64    `json:"pos,omitempty"` // of two states of a message the one with the higher pos is the later
	Sender       string   `json:"sender,omitempty"`
	Name         string   `json:"name,omitempty"` // empty: a tombstone, or a text that is none of the harness's
	Version      int64    `json:"version,omitempty"`
	Deleted      bool     `json:"deleted,omitempty"`
	System       string   `json:"system,omitempty"` // of a system message: what it tells
	Users        []string `json:"users,omitempty"`  // of a system message: of whom
}

// Receipt is how far a member has got.
type Receipt struct {
	User      string `json:"user"`
	Delivered int64  `json:"delivered"`
	Read      int64  `json:"read"`
}

// definite are the codes by which the server says that an operation was not done, and will not be.
var definite = map[string]bool{
	"bad_request": true, "not_authenticated": true, "token_expired": true, "forbidden": true, "not_found": true, "conflict": true,
	"too_large": true, "blocked": true, "rate_limited": true, "overloaded": true, "storage_full": true,
}

// Refused reports whether the line says that its operation was not done, and will not be.
func (l *Line) Refused() bool { return l.Phase == Fail && definite[l.Code] }
