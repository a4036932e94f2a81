package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/chat"
	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// body is a problem in the very bytes that go out.
func body(title string, code problem.Code, sentence, more string) string {
	return fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":%q,"code":%q,"error":%q%s}`, title, code.Status(), sentence, code, sentence, more)
}

// check holds an answer to a problem's bytes and headers. "ID" in want stands for the request's id.
func check(t *testing.T, what string, a answer, want string) {
	t.Helper()
	want = strings.ReplaceAll(want, "ID", a.header.Get("X-Request-Id"))
	if a.body != want || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(want, fmt.Sprintf(`"status":%d,`, a.status)) {
		t.Errorf("%s: %d %s\n%s\nwant\n%s", what, a.status, a.header.Get("Content-Type"), a.body, want)
	}
}

func TestProblems(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite, chat.Check), nil)
	cv := f.group("bob")
	conversation, messages := "/v1/conversations/"+string(cv.ID), "/v1/conversations/"+string(cv.ID)+"/messages"
	m := f.send("ann", cv.ID, "hello")
	f.as("ann", POST, messages, `{"content":"a","client_message_id":"c"}`, 201, nil)
	var direct chat.Conversation
	f.as("ann", POST, "/v1/conversations", `{"type":"direct","member_ids":["bob"]}`, 201, &direct)
	deleted := f.send("ann", cv.ID, "soon gone")
	f.as("ann", DELETE, "/v1/messages/"+string(deleted.ID), "", 200, nil)

	const (
		badRequest = "Bad Request"
		hidden     = "Not Found"
	)
	for name, tt := range map[string]struct {
		user               id.User // nobody if empty
		method, path, body string
		want               string
	}{
		"no token":                      {"", GET, "/v1/me", "", body("Unauthorized", "not_authenticated", "Authentication failed", "")},
		"no such route":                 {"ann", GET, "/v1/nothing", "", body(hidden, "not_found", "There is no such route.", "")},
		"no such method":                {"ann", "PUT", "/v1/me", "", body("Method Not Allowed", "method_not_allowed", "The route does not take this method.", "")},
		"conversation not found":        {"eve", GET, conversation, "", body(hidden, "not_found", "Conversation not found", "")},
		"message not found":             {"eve", PATCH, "/v1/messages/" + string(m.ID), `{"content":"x"}`, body(hidden, "not_found", "Message not found", "")},
		"receipts not found":            {"eve", GET, "/v1/messages/" + string(m.ID) + "/receipts", "", body(hidden, "not_found", "Message not found", "")},
		"receipts of no message":        {"ann", GET, "/v1/messages/x/receipts", "", body(hidden, "not_found", "Message not found", "")},
		"a page cursor of no readers":   {"ann", GET, "/v1/messages/" + string(m.ID) + "/receipts?cursor=AAA", "", body(badRequest, "bad_request", "The page cursor cannot be read.", "")},
		"user not found":                {"ann", GET, "/v1/users/never", "", body(hidden, "not_found", "User not found", "")},
		"another's message":             {"bob", PATCH, "/v1/messages/" + string(m.ID), `{"content":"x"}`, body("Forbidden", "forbidden", "User not authorized", "")},
		"another's message to delete":   {"bob", DELETE, "/v1/messages/" + string(m.ID), "", body("Forbidden", "forbidden", "User not authorized", "")},
		"no right to add":               {"bob", POST, conversation + "/members", `{"member_ids":["cem"]}`, body("Forbidden", "forbidden", "User not authorized", "")},
		"no right to remove":            {"bob", DELETE, conversation + "/members/ann", "", body("Forbidden", "forbidden", "User not authorized", "")},
		"a third in two":                {"ann", POST, "/v1/conversations/" + string(direct.ID) + "/members", `{"member_ids":["cem"]}`, body("Conflict", "conflict", "The members of a direct conversation do not change.", "")},
		"the last owner":                {"ann", DELETE, conversation + "/members/ann", "", body("Conflict", "conflict", "The last owner cannot leave while others are there.", "")},
		"editing what is gone":          {"ann", PATCH, "/v1/messages/" + string(deleted.ID), `{"content":"x"}`, body("Conflict", "conflict", "The message has been deleted.", "")},
		"client_message_id used":        {"ann", POST, messages, `{"content":"b","client_message_id":"c"}`, body("Conflict", "conflict", "client_message_id was used for another message.", "")},
		"a limit in words":              {"ann", GET, "/v1/conversations?limit=ten", "", body(badRequest, "bad_request", "limit must be a number.", "")},
		"an empty limit":                {"ann", GET, "/v1/sync?limit=", "", body(badRequest, "bad_request", "limit must be a number.", "")},
		"half a limit":                  {"ann", GET, messages + "?limit=1.5", "", body(badRequest, "bad_request", "limit must be a number.", "")},
		"no page cursor":                {"ann", GET, "/v1/conversations?cursor=!", "", body(badRequest, "bad_request", "The page cursor cannot be read.", "")},
		"a page cursor of another list": {"ann", GET, "/v1/conversations?cursor=YW5u", "", body(badRequest, "bad_request", "The page cursor cannot be read.", "")},
		"a page cursor with a NUL":      {"ann", GET, conversation + "/members?cursor=AAA", "", body(badRequest, "bad_request", "The page cursor cannot be read.", "")},
		"a page cursor of bytes":        {"ann", GET, conversation + "/members?cursor=__8", "", body(badRequest, "bad_request", "The page cursor cannot be read.", "")},
		"no sync cursor":                {"ann", GET, "/v1/sync?cursor=!", "", body(badRequest, "bad_request", "The cursor cannot be read.", "")},
		"no sync cursor by post":        {"ann", POST, "/v1/sync", `{"cursor":"AA"}`, body(badRequest, "bad_request", "The cursor cannot be read.", "")},
		"before nothing":                {"ann", GET, messages + "?before=yesterday", "", body(badRequest, "bad_request", "before, after and around take a seq or a time of RFC 3339.", "")},
		"before and after":              {"ann", GET, messages + "?before=1&after=2", "", body(badRequest, "bad_request", "Only one of before, after and around can be given.", "")},
		"a query that is none":          {"ann", GET, "/v1/me?a=%zz", "", body(badRequest, "bad_request", "The query cannot be read.", "")},
		"nobody":                        {"ann", GET, "/v1/users", "", body(badRequest, "bad_request", "ids must name somebody.", "")},
		"no user id":                    {"ann", GET, "/v1/users?ids=a,,b", "", body(badRequest, "bad_request", "ids holds what is no user id.", "")},
		"user ids of bytes":             {"ann", GET, "/v1/users?ids=%ff%00", "", body(badRequest, "bad_request", "ids holds what is no user id.", "")},
		"too many users":                {"ann", GET, "/v1/users?ids=a" + strings.Repeat(",a", 1000), "", body(badRequest, "bad_request", "At most 1000 users can be asked for at a time.", "")},
	} {
		q := request{method: tt.method, path: tt.path, body: tt.body}
		if tt.user != "" {
			q.token = f.token(tt.user)
		}
		check(t, name, f.do(q), tt.want)
	}
}

// TestBadBodies sends to every route with a body what it must refuse, and finds that nothing of it was stored or repeated.
func TestBadBodies(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite, chat.Check), func(p *Parts) { p.BodyBytesMax = 1000 })
	cv := f.group("bob")
	m := f.send("ann", cv.ID, "hello")
	conversation := "/v1/conversations/" + string(cv.ID)
	const mark = "Xyzzy"
	state := func() string {
		return f.as("ann", GET, "/v1/conversations", "", 200, nil).body + f.as("ann", GET, conversation+"/messages", "", 200, nil).body
	}
	before := state()

	everywhere := map[string]string{
		"no JSON":           mark,
		"half":              `{"content":"` + mark,
		"a list":            `["` + mark + `"]`,
		"a text":            `"` + mark + `"`,
		"two values":        `{} ` + mark,
		"not UTF-8":         "{\"content\":\"" + mark + "\xff\"}",
		"a NUL":             `{"content":"` + mark + `\u0000"}`,
		"a lone surrogate":  `{"content":"` + mark + `\ud800"}`,
		"one the wrong way": `{"content":"` + mark + `\udc00\ud800"}`,
		"deep":              `{"metadata":` + strings.Repeat("[", 100) + `"` + mark + `"` + strings.Repeat("]", 100) + `}`,
		"a form":            "content=" + mark,
	}
	for path, only := range map[string]map[string]string{
		"POST /v1/conversations": {
			"nothing": `{}`, "null": `null`, "no body": ``,
			"another type":    `{"type":"` + mark + `","member_ids":["bob"]}`,
			"a number":        `{"type":7,"member_ids":["bob"]}`,
			"a name object":   `{"type":"group","name":{"` + mark + `":1},"member_ids":["bob"]}`,
			"a long name":     `{"type":"group","name":"` + strings.Repeat(mark, 100) + `","member_ids":["bob"]}`,
			"members as text": `{"type":"group","member_ids":"` + mark + `"}`,
			"members by no":   `{"type":"group","member_ids":[1]}`,
			"an empty member": `{"type":"group","member_ids":[""]}`,
			"a control":       `{"type":"group","member_ids":["` + mark + `\n"]}`,
			"a long member":   `{"type":"group","member_ids":["` + strings.Repeat(mark, 26) + `"]}`,
			"direct, alone":   `{"type":"direct","member_ids":[]}`,
			"direct, self":    `{"type":"direct","member_ids":["ann"]}`,
			"direct of three": `{"type":"direct","member_ids":["bob","` + mark + `"]}`,
		},
		"POST " + conversation + "/members": {
			"nothing": `{}`, "nobody": `{"member_ids":[]}`,
			"another role": `{"member_ids":["cem"],"role":"` + mark + `"}`,
			"an owner":     `{"member_ids":["cem"],"role":"owner"}`,
			"a number":     `{"member_ids":["cem"],"role":1}`,
		},
		"POST " + conversation + "/messages": {
			"nothing": `{}`, "empty": `{"content":""}`,
			"a number":         `{"content":7}`,
			"a system message": `{"content":"` + mark + `","type":"system"}`,
			"a call":           `{"content":"` + mark + `","type":"call"}`,
			"a reply to none":  `{"content":"` + mark + `","reply_to_id":"` + mark + `"}`,
			"metadata a list":  `{"content":"` + mark + `","metadata":["` + mark + `"]}`,
			"a long client id": `{"content":"x","client_message_id":"` + strings.Repeat(mark, 13) + `"}`,
			"a file":           `{"content":"x","file_id":"` + mark + `"}`,
			"a thread":         `{"content":"x","thread_id":"` + mark + `"}`,
			"attachments":      `{"content":"x","attachments":["` + mark + `"]}`,
		},
		"PATCH /v1/messages/" + string(m.ID): {
			"nothing": `{}`, "empty": `{"content":""}`, "null": `{"content":null}`, "a list": `{"content":["` + mark + `"]}`,
		},
		"POST /v1/sync": {
			"a cursor number": `{"cursor":1}`, "a limit text": `{"limit":"` + mark + `"}`, "half a limit": `{"limit":1.5}`,
		},
	} {
		method, path, _ := strings.Cut(path, " ")
		for _, bodies := range []map[string]string{everywhere, only} {
			for name, sent := range bodies {
				a := f.do(request{method: method, path: path, token: f.token("ann"), body: sent})
				if a.status != 400 || !strings.Contains(a.body, `"code":"bad_request"`) || strings.Contains(a.body, mark) {
					t.Errorf("%s %s, %s: %d %s", method, path, name, a.status, a.body)
				}
			}
		}
		for _, chunked := range []bool{false, true} {
			a := f.do(request{method: method, path: path, token: f.token("ann"), body: `{"content":"` + strings.Repeat("x", 1000) + `"}`, chunked: chunked})
			check(t, "a body too large for "+path, a, body("Request Entity Too Large", "too_large", "The body has more than 1000 bytes.", ""))
		}
	}
	if after := state(); after != before {
		t.Errorf("after what was refused:\n%s\nbefore:\n%s", after, before)
	}
	// A body of exactly the bound, and one of another type, are taken.
	padded := `{"content":"x"}` + strings.Repeat(" ", 1000-15)
	a := f.do(request{method: POST, path: conversation + "/messages", token: f.token("ann"), body: padded, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}})
	if a.status != 201 {
		t.Errorf("a body of the bound: %d %s", a.status, a.body)
	}
	if strings.Contains(f.log.String(), mark) {
		t.Error("what was refused is in the log")
	}
}

// TestHiddenIsUnknown asks for what exists and is not the caller's, for what never existed, and for what could not.
func TestHiddenIsUnknown(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		f := start(t, db, nil)
		cv := f.group("bob")
		m := f.send("ann", cv.ID, "hello")
		malformed := []string{"x", "%00", "%ff%fe", "%2e%2e", "a%2Fb", "%20", "'%22;--", strings.Repeat("9", 500), strings.ToUpper(string(cv.ID)), "%F0%9F%98%80"}
		for _, tt := range []struct {
			method, before, hidden, never, after, body string
		}{
			{GET, "/v1/conversations/", string(cv.ID), string(id.NewConversation(cv.ID.Bucket(), time.Now())), "", ""},
			{GET, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/members", ""},
			{POST, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/members", `{"member_ids":["eve"]}`},
			{DELETE, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/members/bob", ""},
			{DELETE, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/members/eve", ""},
			{GET, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/messages", ""},
			{POST, "/v1/conversations/", string(cv.ID), string(id.NewConversation(0, time.Now())), "/messages", `{"content":"x","client_message_id":"c"}`},
			{PATCH, "/v1/messages/", string(m.ID), string(id.NewMessage(cv.ID.Bucket(), time.Now())), "", `{"content":"x"}`},
			{DELETE, "/v1/messages/", string(m.ID), string(id.NewMessage(0, time.Now())), "", ""},
			{GET, "/v1/users/", "never", "nor this one", "", ""},
		} {
			ask := func(id string) answer {
				a := f.do(request{method: tt.method, path: tt.before + strings.ReplaceAll(id, " ", "%20") + tt.after, token: f.token("eve"), body: tt.body})
				a.header.Del("X-Request-Id")
				a.header.Del("Date")
				return a
			}
			want := ask(tt.never)
			if want.status != 404 || !strings.Contains(want.body, `"code":"not_found"`) {
				t.Errorf("%s %s<never>%s: %d %s", tt.method, tt.before, tt.after, want.status, want.body)
			}
			for _, id := range append([]string{tt.hidden}, malformed...) {
				if got := ask(id); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s %s%s%s: %v, want %v", tt.method, tt.before, id, tt.after, got, want)
				}
			}
		}
	}, chat.Check)
}

// TestInternal breaks the database under the face: the client learns nothing of it, the log does.
func TestInternal(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite)
	f := start(t, db, nil)
	cv := f.group("bob")
	f.as("bob", GET, "/v1/me", "", 200, nil)
	err := db.InTx(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), "ALTER TABLE messages RENAME TO elsewhere")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a := f.do(request{method: GET, path: "/v1/conversations/" + string(cv.ID) + "/messages", token: f.token("bob")})
	check(t, "without its table", a, body("Internal Server Error", "internal", "Something went wrong on our side.", `,"request_id":"ID"`))
	if line := f.log.line("no such table: messages"); !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "request="+a.header.Get("X-Request-Id")) {
		t.Errorf("the log has of the cause: %q", line)
	}
}

func TestStorageFull(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite, chat.Check)
	f := start(t, db, nil)
	cv := f.group("bob")
	err := db.InTx(t.Context(), func(tx *sqldb.Tx) error { // to the pages that there are
		_, err := tx.Exec(t.Context(), "PRAGMA max_page_count = 1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a := f.do(request{method: POST, path: "/v1/conversations/" + string(cv.ID) + "/messages", token: f.token("ann"), body: `{"content":"` + strings.Repeat("x", 30<<10) + `"}`})
	check(t, "a send without room", a, body("Insufficient Storage", "storage_full", "There is no room to store anything.", `,"request_id":"ID"`))
	// What chat leaves to us, here the users that a conversation brings with it.
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprintf(`"%0100d"`, i))
	}
	a = f.do(request{method: POST, path: "/v1/conversations", token: f.token("ann"), body: `{"type":"group","member_ids":[` + strings.Join(ids, ",") + `]}`})
	check(t, "a conversation without room", a, body("Insufficient Storage", "storage_full", "There is no room to store anything.", `,"request_id":"ID"`))
	f.as("ann", GET, "/v1/conversations", "", 200, nil) // reads go on
}

func TestOverloaded(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite, chat.Check), nil)
	cv := f.group("bob")
	f.stop()
	a := f.do(request{method: POST, path: "/v1/conversations/" + string(cv.ID) + "/messages", token: f.token("ann"), body: `{"content":"x"}`})
	check(t, "a send that nobody commits", a, body("Service Unavailable", "overloaded", "The server has too much to do.", `,"request_id":"ID","retry_after_ms":1000`))
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
	}
}

func TestNotReady(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), func(p *Parts) {
		p.Ready = func(context.Context) error { return errors.New("the database is on fire") }
	})
	a := f.do(request{method: GET, path: "/readyz"})
	check(t, "a node that is not ready", a, body("Service Unavailable", "unavailable", "The node is not ready.", `,"request_id":"ID","retry_after_ms":1000`))
	if !strings.Contains(f.log.String(), "on fire") {
		t.Error("the log does not say why")
	}
	if a := f.do(request{method: GET, path: "/healthz"}); a.status != 200 {
		t.Errorf("healthz: %d", a.status)
	}
}

// TestPanic has one request panic, and others go on.
func TestPanic(t *testing.T) {
	begun, done := make(chan struct{}), make(chan struct{})
	var requests atomic.Int32
	release := sync.OnceFunc(func() { close(done) })
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), func(p *Parts) {
		p.Ready = func(context.Context) error {
			if requests.Add(1) == 2 {
				panic("boom")
			}
			close(begun) // the first waits while the second panics
			<-done
			return nil
		}
	})
	t.Cleanup(release) // also when the test fails before it gets there
	type result struct {
		status int
		err    error
	}
	other := make(chan result, 1)
	go func() {
		resp, err := client.Get(f.url + "/readyz")
		if err != nil {
			other <- result{0, err}
			return
		}
		other <- result{resp.StatusCode, resp.Body.Close()}
	}()
	<-begun
	a := f.do(request{method: GET, path: "/readyz"})
	release()
	check(t, "a panic", a, body("Internal Server Error", "internal", "Something went wrong on our side.", `,"request_id":"ID"`))
	if r := <-other; r.status != 200 || r.err != nil {
		t.Errorf("beside a panic: %+v", r)
	}
	if line := f.log.line("boom"); !strings.Contains(line, "problem_test.go") || !strings.Contains(line, "request="+a.header.Get("X-Request-Id")) {
		t.Errorf("the log has of the panic: %q", line)
	}
	if a := f.do(request{method: GET, path: "/metrics"}); !strings.Contains(a.body, "parley_rest_panics_total 1\n") {
		t.Error("the panic was not counted")
	}
}

// TestRetryAfter holds the header to whole seconds (RFC 9110, section 10.2.3), rounded up.
func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Minute: "60"} {
		w := httptest.NewRecorder()
		writeProblem(&exchange{ResponseWriter: w, id: "r"}, &problem.Error{Code: problem.RateLimited, Message: "Rate limit exceeded. Please slow down.", RetryAfter: after})
		if got := w.Header().Get("Retry-After"); got != want || w.Code != http.StatusTooManyRequests {
			t.Errorf("after %s: %d, Retry-After %q, want %q", after, w.Code, got, want)
		}
		if says := strings.Contains(w.Body.String(), fmt.Sprintf(`"retry_after_ms":%d}`, after.Milliseconds())); says != (after > 0) {
			t.Errorf("after %s: %s", after, w.Body)
		}
	}
}
