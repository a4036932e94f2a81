package rest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/chat"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestRoutes drives every line of the table to each of its good answers, and ends by asking /metrics whether it did.
func TestRoutes(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		f := start(t, db, nil)
		t.Run("conversations", func(t *testing.T) { f.t = t; testConversations(t, f) })
		t.Run("members", func(t *testing.T) { f.t = t; testMembers(t, f) })
		t.Run("messages", func(t *testing.T) { f.t = t; testMessages(t, f) })
		t.Run("receipts", func(t *testing.T) { f.t = t; testReceipts(t, f) })
		t.Run("sync", func(t *testing.T) { f.t = t; testSync(t, f) })
		t.Run("users", func(t *testing.T) { f.t = t; testUsers(t, f) })
		t.Run("operation", func(t *testing.T) { f.t = t; testOperation(t, f) })
	}, chat.Check)
}

func testConversations(t *testing.T, f *front) {
	var cv, again, got chat.Conversation
	a := f.as("ann", POST, "/v1/conversations", `{"type":"group","name":"Plans","avatar_url":"https://example.org/a.png","member_ids":["bob"],"unknown":1}`, 201, &cv)
	if cv.Type != chat.Group || *cv.Name != "Plans" || *cv.AvatarURL != "https://example.org/a.png" || cv.Role != chat.Owner || cv.MemberCount != 2 ||
		!slices.Equal(cv.ParticipantIDs, []id.User{"ann", "bob"}) || !slices.Equal(cv.AdminIDs, []id.User{"ann"}) {
		t.Errorf("made %+v", cv)
	}
	if a.header.Get("Location") != "/v1/conversations/"+string(cv.ID) || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers of what was made: %v", a.header)
	}
	f.as("bob", GET, a.header.Get("Location"), "", 200, &got)
	if got.ID != cv.ID || got.Role != chat.Ordinary {
		t.Errorf("as bob sees it: %+v", got)
	}
	f.as("ann", POST, "/v1/conversations", `{"type":"direct","member_ids":["bob"]}`, 201, &cv)
	f.as("bob", POST, "/v1/conversations", `{"type":"direct","member_ids":["ann"]}`, 200, &again)
	if again.ID != cv.ID || again.MemberCount != 2 || !slices.Equal(again.ParticipantIDs, cv.ParticipantIDs) {
		t.Errorf("the direct conversation is %+v, made as %+v", again, cv)
	}

	var want []id.Conversation
	for range 5 {
		var cv chat.Conversation
		f.as("lis", POST, "/v1/conversations", `{"type":"channel","member_ids":[]}`, 201, &cv)
		f.send("lis", cv.ID, "the newest")
		want = append([]id.Conversation{cv.ID}, want...)
	}
	var listed []id.Conversation
	cursor := ""
	for range 10 {
		var p conversationPage
		f.as("lis", GET, "/v1/conversations?limit=2&cursor="+url.QueryEscape(cursor), "", 200, &p)
		for _, cv := range p.Conversations {
			listed = append(listed, cv.ID)
		}
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	slices.Sort(listed) // those of one millisecond stand by id
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("listed %v, want %v", listed, want)
	}
	var p conversationPage
	if a := f.as("nobody", GET, "/v1/conversations", "", 200, &p); a.body != `{"conversations":[]}` {
		t.Errorf("an empty list: %s", a.body)
	}
}

func testMembers(t *testing.T, f *front) {
	cv := f.group("bob")
	members := "/v1/conversations/" + string(cv.ID) + "/members"
	var row chat.Conversation
	f.as("ann", POST, members, `{"member_ids":["cem","a b/c","ünal"],"role":"moderator"}`, 201, &row)
	if row.MemberCount != 5 {
		t.Errorf("after adding three: %+v", row)
	}
	var all []chat.Member
	cursor, pages := "", 0
	for ; pages < 10; pages++ {
		var p memberPage
		f.as("bob", GET, members+"?limit=2&cursor="+url.QueryEscape(cursor), "", 200, &p)
		all = append(all, p.Members...)
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	var ids []id.User
	for _, m := range all {
		ids = append(ids, m.UserID)
	}
	if want := []id.User{"a b/c", "ann", "bob", "cem", "ünal"}; !slices.Equal(ids, want) || pages != 2 || all[0].Role != chat.Moderator || all[1].Role != chat.Owner {
		t.Errorf("members: %+v, want %v on three pages", all, want)
	}
	if a := f.as("ann", DELETE, members+"/a%20b%2Fc", "", 204, nil); a.body != "" {
		t.Errorf("a removal was answered %q", a.body)
	}
	f.as("ann", DELETE, members+"/a%20b%2Fc", "", 204, nil) // it is done already
	f.as("bob", DELETE, members+"/bob", "", 204, nil)
	f.as("bob", GET, members, "", 404, nil)
	f.as("ann", GET, "/v1/conversations/"+string(cv.ID), "", 200, &row)
	if row.MemberCount != 3 {
		t.Errorf("after removing two: %+v", row)
	}
}

func testMessages(t *testing.T, f *front) {
	cv := f.group("bob")
	path := "/v1/conversations/" + string(cv.ID) + "/messages"
	full := `{"content":"hi","type":"text","client_message_id":"c1","metadata":{"a":[1]},"encrypted_content":"x","file_id":null,"conversation_id":"elsewhere"}`
	a := f.as("ann", POST, path, full, 201, nil)
	if again := f.as("ann", POST, path, full, 201, nil); again.body != a.body {
		t.Errorf("the same client_message_id answered\n%s, first\n%s", again.body, a.body)
	}
	var out struct {
		OK      bool
		Message chat.Message
	}
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatal(err)
	}
	m := out.Message
	if !out.OK || m.Seq != 1 || *m.Content != "hi" || m.ClientMessageID != "c1" || string(m.Metadata) != `{"a":[1]}` || *m.EncryptedContent != "x" || m.ConversationID != cv.ID {
		t.Errorf("sent %s", a.body)
	}
	if a := f.as("ann", POST, path, `{"content":"other","client_message_id":"c1"}`, 409, nil); !strings.Contains(a.body, `"code":"conflict"`) {
		t.Errorf("another message under the same client_message_id: %s", a.body)
	}
	f.as("bob", POST, path, `{"content":"re","reply_to_id":"`+string(m.ID)+`"}`, 201, nil)
	for i := 3; i <= 10; i++ {
		f.send("ann", cv.ID, fmt.Sprintf("message %d", i))
	}

	seqs := func(query string) (seqs []int64, p chat.HistoryPage) {
		f.as("bob", GET, path+query, "", 200, &p)
		for _, m := range p.Messages {
			seqs = append(seqs, m.Seq)
			if m.SenderID == "ann" && m.ClientMessageID != "" {
				t.Errorf("bob sees ann's client_message_id in %+v", m)
			}
		}
		return seqs, p
	}
	for query, want := range map[string][]int64{
		"":                                     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"?limit=2":                             {9, 10},
		"?limit=0":                             {10},
		"?limit=-7":                            {10},
		"?limit=99999999999999999999":          {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"?before=4&limit=2":                    {2, 3},
		"?after=4&limit=2":                     {5, 6},
		"?around=5&limit=4":                    {3, 4, 5, 6},
		"?after=" + "2000-01-01T00:00:00Z":     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"?before=" + "2000-01-01T00:00:00.00Z": nil,
		"?unknown=1&limit=1":                   {10},
	} {
		if got, _ := seqs(query); !slices.Equal(got, want) {
			t.Errorf("history%s: %v, want %v", query, got, want)
		}
	}
	_, p := seqs("?around=5&limit=4")
	if p.Prev == "" || p.Next == "" {
		t.Errorf("a page in the middle says prev %q, next %q", p.Prev, p.Next)
	}

	var row chat.Message
	f.as("ann", PATCH, "/v1/messages/"+string(m.ID), `{"content":"hello"}`, 200, &row)
	if *row.Content != "hello" || !row.IsEdited || row.ClientMessageID != "c1" {
		t.Errorf("edited: %+v", row)
	}
	f.as("ann", DELETE, "/v1/messages/"+string(m.ID), "", 200, &row)
	if !row.IsDeleted || *row.Content != chat.DeletedContent || row.Seq != 1 {
		t.Errorf("deleted: %+v", row)
	}
	if got, _ := seqs("?limit=100"); len(got) != 9 || got[0] != 2 {
		t.Errorf("history after a deletion: %v", got)
	}
}

func testReceipts(t *testing.T, f *front) {
	cv := f.group("bob", "cem", "a b/c")
	m := f.send("ann", cv.ID, "hello")
	if _, err := f.chat.Read(t.Context(), "cem", chat.Mark{MessageID: string(m.ID)}); err != nil {
		t.Fatal(err)
	}
	var readers []string
	cursor := ""
	for range 10 {
		var p receiptPage
		f.as("bob", GET, "/v1/messages/"+string(m.ID)+"/receipts?limit=2&cursor="+url.QueryEscape(cursor), "", 200, &p)
		for _, r := range p.Readers {
			readers = append(readers, fmt.Sprintf("%s %s %t %t", r.UserID, r.Status, r.DeliveredAt != nil, r.ReadAt != nil))
		}
		if want := (chat.ReceiptCounts{Read: 1, Delivered: 1, Sent: 3}); p.Counts != want || p.Status != chat.Sent {
			t.Errorf("receipts: %s, %+v, want sent, %+v", p.Status, p.Counts, want)
		}
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	if want := []string{"a b/c sent false false", "bob sent false false", "cem read true true"}; !slices.Equal(readers, want) {
		t.Errorf("readers: %q, want %q", readers, want)
	}
	alone := f.send("ann", f.group().ID, "to nobody")
	if a := f.as("ann", GET, "/v1/messages/"+string(alone.ID)+"/receipts", "", 200, nil); a.body != `{"status":"sent","counts":{"read":0,"delivered":0,"sent":0},"readers":[]}` {
		t.Errorf("the receipts of a message to nobody: %s", a.body)
	}
}

func testSync(t *testing.T, f *front) {
	cv := f.group("syn")
	var p chat.SyncPage
	f.as("syn", GET, "/v1/sync", "", 200, &p)
	if p.Cursor == "" || len(p.Changes) != 0 || p.HasMore || p.Reset {
		t.Fatalf("the first sync: %+v", p)
	}
	begin := p.Cursor
	for i := range 3 {
		f.send("ann", cv.ID, fmt.Sprint(i))
	}
	var byPost chat.SyncPage
	f.as("syn", GET, "/v1/sync?cursor="+url.QueryEscape(begin), "", 200, &p)
	f.as("syn", POST, "/v1/sync", `{"cursor":"`+begin+`"}`, 200, &byPost)
	if len(p.Changes) != 3 || p.Changes[0].Kind != "message" || *p.Changes[2].Message.Content != "2" || len(byPost.Changes) != 3 || byPost.Cursor != p.Cursor {
		t.Errorf("sync by GET: %+v, by POST %+v", p, byPost)
	}
	var texts []string
	cursor := begin
	for range 10 {
		f.as("syn", POST, "/v1/sync", `{"cursor":"`+cursor+`","limit":1}`, 200, &p)
		for _, ch := range p.Changes {
			texts = append(texts, *ch.Message.Content)
		}
		if cursor = p.Cursor; !p.HasMore {
			break
		}
	}
	if !slices.Equal(texts, []string{"0", "1", "2"}) {
		t.Errorf("page by page: %v", texts)
	}
	f.as("syn", POST, "/v1/sync", "", 200, &p) // no body at all
	f.as("syn", POST, "/v1/sync", `{"limit":1000000}`, 200, &p)
}

func testUsers(t *testing.T, f *front) {
	token := f.mint(auth.Claims{Sub: "zoe", Name: "Zoë", Role: auth.RoleGuest, TTL: time.Hour}, secret, time.Now())
	var me, zoe auth.User
	if a := f.do(request{method: GET, path: "/v1/me", token: token}); a.status != 200 || json.Unmarshal([]byte(a.body), &me) != nil {
		t.Fatalf("me: %d %s", a.status, a.body)
	}
	if me.ID != "zoe" || me.DisplayName != "Zoë" || me.Role != auth.RoleGuest {
		t.Errorf("me: %+v", me)
	}
	f.as("ann", GET, "/v1/users/zoe", "", 200, &zoe)
	if zoe.ID != "zoe" || zoe.CreatedAt != me.CreatedAt {
		t.Errorf("zoe: %+v", zoe)
	}
	f.as("x/y?z", GET, "/v1/users/x%2Fy%3Fz", "", 200, &zoe)
	if zoe.ID != "x/y?z" {
		t.Errorf("an id with a slash: %+v", zoe)
	}
	var list userList
	f.as("ann", GET, "/v1/users?ids=zoe,never,ann&ids=zoe%2Cx%2Fy%3Fz", "", 200, &list)
	var ids []id.User
	for _, u := range list.Users {
		ids = append(ids, u.ID)
	}
	if want := []id.User{"zoe", "ann", "x/y?z"}; !slices.Equal(ids, want) {
		t.Errorf("users: %v, want %v", ids, want)
	}
	if a := f.as("ann", GET, "/v1/users?ids=never", "", 200, nil); a.body != `{"users":[]}` {
		t.Errorf("nobody: %s", a.body)
	}
}

func testOperation(t *testing.T, f *front) {
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := f.do(request{method: GET, path: path}); a.status != 200 || a.body != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := f.do(request{method: "HEAD", path: "/healthz"}); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "15" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	for path, contentType := range map[string]string{"/openapi.json": "application/json", "/docs": "text/html; charset=utf-8"} {
		if a := f.do(request{method: GET, path: path}); a.status != 200 || a.header.Get("Content-Type") != contentType {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	f.do(request{method: GET, path: "/metrics"}) // the second one shows the first
	a := f.do(request{method: GET, path: "/metrics"})
	counted := map[string]bool{}
	for s := bufio.NewScanner(strings.NewReader(a.body)); s.Scan(); {
		if line, ok := strings.CutPrefix(s.Text(), "parley_rest_request_seconds_count"); ok {
			labels, _, _ := strings.Cut(line, " ")
			counted[labels] = true
		}
	}
	for _, rt := range routes {
		for _, status := range rt.statuses {
			if want := fmt.Sprintf(`{operation=%q,status="%d"}`, rt.name, status); !counted[want] {
				t.Errorf("%s was never answered with %d", rt.name, status)
			}
		}
	}
}
