package rest

import (
	"net/http"

	"parley/internal/problem"
)

const (
	GET    = http.MethodGet
	POST   = http.MethodPost
	PATCH  = http.MethodPatch
	DELETE = http.MethodDelete
)

// The nouns that the reference sorts routes by.
const (
	conversations = "Conversations"
	messages      = "Messages"
	catchingUp    = "Catching up"
	users         = "Users"
	operation     = "Operation"
)

// The statuses of answers.
var (
	okay        = []int{http.StatusOK}
	made        = []int{http.StatusCreated}
	madeOrFound = []int{http.StatusCreated, http.StatusOK}
	gone        = []int{http.StatusNoContent}
)

// The failures of single routes. Those that follow from a line's shape are added to them (route.failures).
const (
	forbidden   = problem.Forbidden
	notFound    = problem.NotFound
	conflict    = problem.Conflict
	overloaded  = problem.Overloaded
	unavailable = problem.Unavailable
	storageFull = problem.StorageFull
)

// route is one line of the table.
type route struct {
	method, path string
	name         string // names the operation in OpenAPI and in metrics
	noun         string
	statuses     []int // of answers that are no failure; the first unless the handler sets another
	endpoint
	summary string
	params  []param // of the query
	codes   []problem.Code
}

// routes is all that exists.
var routes = []route{
	{POST, "/v1/conversations", "create-conversation", conversations, madeOrFound, takes((*face).createConversation), "Make a conversation. The direct one of a pair is made once: where it exists, it is answered with 200.", nil, codes(storageFull)},
	{GET, "/v1/conversations", "list-conversations", conversations, okay, reads((*face).listConversations), "List the caller's conversations, the newest activity first.", page, nil},
	{GET, "/v1/conversations/{id}", "get-conversation", conversations, okay, reads((*face).getConversation), "Get one of the caller's conversations.", nil, codes(notFound)},
	{GET, "/v1/conversations/{id}/members", "list-members", conversations, okay, reads((*face).listMembers), "List the members of a conversation, in the order of their ids.", page, codes(notFound)},
	{POST, "/v1/conversations/{id}/members", "add-members", conversations, made, takes((*face).addMembers), "Add members. Those who are members already stay as they are. The answer is the conversation.", nil, codes(forbidden, notFound, conflict, storageFull)},
	{DELETE, "/v1/conversations/{id}/members/{user_id}", "remove-member", conversations, gone, reads((*face).removeMember), "Remove a member, or leave. One who is no member is none after it.", nil, codes(forbidden, notFound, conflict, storageFull)},

	{POST, "/v1/conversations/{id}/messages", "send-message", messages, made, takes((*face).sendMessage), "Send a message. It is on disk when the answer comes. The same client_message_id answers the same message again.", nil, codes(forbidden, notFound, conflict, overloaded, unavailable, storageFull)},
	{GET, "/v1/conversations/{id}/messages", "list-messages", messages, okay, reads((*face).listMessages), "Read a page of a conversation, oldest first. Deleted messages are left out.", history, codes(notFound)},
	{PATCH, "/v1/messages/{id}", "edit-message", messages, okay, takes((*face).editMessage), "Replace the text of a message of one's own.", nil, codes(forbidden, notFound, conflict, storageFull)},
	{DELETE, "/v1/messages/{id}", "delete-message", messages, okay, reads((*face).deleteMessage), "Delete a message for everyone. The answer is what stays of it.", nil, codes(forbidden, notFound, storageFull)},
	{GET, "/v1/messages/{id}/receipts", "list-receipts", messages, okay, reads((*face).listReceipts), "Tell how far a message has got: counts, and whom it has reached when, in the order of their ids.", page, codes(notFound)},

	{GET, "/v1/sync", "sync", catchingUp, okay, reads((*face).sync), "Get what changed for the caller since a cursor. Without one, get a cursor that stands for now.", changes, nil},
	{POST, "/v1/sync", "sync-by-post", catchingUp, okay, takes((*face).syncByPost), "The same with the cursor in the body, for cursors that are too long for a URL.", nil, nil},

	{GET, "/v1/me", "get-me", users, okay, reads((*face).getMe), "Get the caller.", nil, nil},
	{GET, "/v1/users", "list-users", users, okay, reads((*face).listUsers), "Get several users by their ids. Those who do not exist are left out.", userIDs, nil},
	{GET, "/v1/users/{id}", "get-user", users, okay, reads((*face).getUser), "Get one user.", nil, codes(notFound)},

	{GET, "/healthz", "health", operation, okay, open(reads((*face).health)), "Tell that the process lives.", nil, nil},
	{GET, "/readyz", "readiness", operation, okay, open(reads((*face).readiness)), "Tell whether the node should get requests.", nil, codes(unavailable)},
	{GET, "/metrics", "metrics", operation, okay, open(serves("text/plain", (*face).metrics)), "Show the metrics, in the text format of Prometheus.", nil, nil},
	{GET, "/openapi.json", "openapi", operation, okay, open(serves("application/json", (*face).openAPI)), "Describe all routes, by OpenAPI 3.1.", nil, nil},
	{GET, "/docs", "docs", operation, okay, open(serves("text/html", (*face).docs)), "Show this reference as a page.", nil, nil},
}

// param is a parameter of the query.
type param struct {
	name           string
	doc            string
	standard, most int  // set: a number from 1 to most, and what it is if not given
	required       bool // always a list of texts then
}

// The parameters of the routes that have some.
var (
	page = []param{
		{name: "limit", doc: "How many are wanted at most.", standard: 50, most: 100},
		{name: "cursor", doc: "The next of the page before."},
	}
	history = []param{
		{name: "before", doc: "Only older messages than this seq, or this time (RFC 3339)."},
		{name: "after", doc: "Only newer messages than this seq, or those since this time."},
		{name: "around", doc: "Messages on both sides of this seq, or this time."},
		{name: "limit", doc: "How many are wanted at most.", standard: 50, most: 100},
	}
	changes = []param{
		{name: "cursor", doc: "How far the caller has got: the cursor of an earlier answer, or of a socket event."},
		syncLimit,
	}
	syncLimit = param{name: "limit", doc: "About how many changes are wanted at most.", standard: 200, most: 1000}
	userIDs   = []param{
		{name: "ids", doc: "User ids with commas between them; it may be given several times. At most 1000.", required: true},
	}
)

// clamp brings a number back to the bounds.
func (p param) clamp(n int) int { return min(max(n, 1), p.most) }

func codes(c ...problem.Code) []problem.Code { return c }

// param finds a parameter of the line. Handlers may use none that is not in the table, and so in the reference.
func (rt *route) param(name string) param {
	for _, p := range rt.params {
		if p.name == name {
			return p
		}
	}
	panic("rest: " + rt.name + " has no parameter " + name + " in the table")
}

// failures are all codes that the line can answer.
func (rt *route) failures() []problem.Code {
	var all []problem.Code
	if !rt.open {
		all = append(all, problem.BadRequest, problem.NotAuthenticated, problem.TokenExpired)
	}
	if rt.body != nil {
		all = append(all, problem.TooLarge)
	}
	return append(append(all, rt.codes...), problem.Internal)
}
