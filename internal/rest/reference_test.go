package rest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

var update = flag.Bool("update", false, "write the generated documents")

//go:embed testdata/rest.md.tmpl
var markdown string

const referencePath = "../../docs/reference/rest.md"

func TestReference(t *testing.T) {
	var b bytes.Buffer
	page := describe().page()
	// A heading's anchor is in small letters.
	words := template.New("rest.md").Funcs(template.FuncMap{"lower": strings.ToLower})
	if err := template.Must(words.Parse(markdown)).Execute(&b, page); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(referencePath, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the table says; run go test ./internal/rest -run TestReference -update", referencePath)
	}
	for _, c := range page.Codes {
		if c.Meaning == "" {
			t.Errorf("the code %s has no meaning in the reference", c.Code)
		}
	}
	fields := map[string]bool{}
	for _, s := range page.Schemas {
		for _, f := range s.Fields {
			fields[s.Name+"."+f.Name] = true
			if f.Doc == "" {
				t.Errorf("%s.%s has no words in the reference", s.Name, f.Name)
			}
		}
	}
	for name := range fieldWords {
		if !fields[name] {
			t.Errorf("there are words for %s, which does not exist", name)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Security    []map[string][]string
			Parameters  []struct {
				Name, In, Description string
				Schema                struct{ Type any }
			}
			RequestBody *struct{ Content map[string]any }
			Responses   map[string]struct{ Content map[string]any }
		}
		Components struct {
			Schemas         map[string]any
			SecuritySchemes map[string]any
		}
	}
	a := f.do(request{method: GET, path: "/openapi.json"})
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Components.SecuritySchemes) != 3 {
		t.Errorf("OpenAPI %s, %v", doc.OpenAPI, doc.Components.SecuritySchemes)
	}
	operations := 0
	for _, methods := range doc.Paths {
		operations += len(methods)
	}
	if operations != len(routes) {
		t.Errorf("%d operations for %d routes", operations, len(routes))
	}
	for _, rt := range routes {
		op, ok := doc.Paths[rt.path][strings.ToLower(rt.method)]
		if !ok || op.OperationID != rt.name || op.Summary == "" || (op.RequestBody != nil) != (rt.body != nil) || (len(op.Security) == 2) == rt.open {
			t.Errorf("%s %s: %+v", rt.method, rt.path, op)
		}
		var inPath, inQuery []string
		for _, p := range op.Parameters {
			if p.In == "path" {
				inPath = append(inPath, "{"+p.Name+"}")
				continue
			}
			inQuery = append(inQuery, p.Name)
			if p.Description == "" || p.Schema.Type == nil {
				t.Errorf("%s %s: parameter %+v", rt.method, rt.path, p)
			}
		}
		if want := regexp.MustCompile(`\{\w+\}`).FindAllString(rt.path, -1); !slices.Equal(inPath, want) || len(inQuery) != len(rt.params) {
			t.Errorf("%s %s: parameters %v %v", rt.method, rt.path, inPath, inQuery)
		}
		for _, c := range rt.failures() {
			if r, ok := op.Responses[strconv.Itoa(c.Status())]; !ok || r.Content["application/problem+json"] == nil {
				t.Errorf("%s %s does not tell of %s", rt.method, rt.path, c)
			}
		}
		for _, s := range rt.statuses {
			if r, ok := op.Responses[strconv.Itoa(s)]; !ok || (r.Content == nil) != (s == 204) {
				t.Errorf("%s %s does not tell of %d", rt.method, rt.path, s)
			}
		}
	}
	// Every reference leads somewhere.
	for _, ref := range regexp.MustCompile(`"\$ref": "([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
		if name, ok := strings.CutPrefix(ref[1], schemaPrefix); !ok || doc.Components.Schemas[name] == nil {
			t.Errorf("the reference %s leads nowhere", ref[1])
		}
	}
}

// TestSchemas holds answers to their schemas: every field of the one stands in the other.
func TestSchemas(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	cv := f.group("bob")
	path := "/v1/conversations/" + string(cv.ID)
	f.as("ann", POST, path+"/messages", `{"content":"x","client_message_id":"c"}`, 201, nil)
	schemas := describe().doc.Components.Schemas.Map()
	hold := func(name string, raw json.RawMessage) {
		t.Helper()
		var fields map[string]any
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatalf("%s: %v in %s", name, err, raw)
		}
		s := schemas[name]
		for field, v := range fields {
			p := s.Properties[field]
			if p == nil {
				t.Errorf("%s.%s is not in the schema", name, field)
			} else if v == nil && !p.Nullable {
				t.Errorf("%s.%s is null, which its schema does not allow", name, field)
			}
		}
		for _, field := range s.Required {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s.%s is missing", name, field)
			}
		}
	}
	var members struct{ Members []json.RawMessage }
	var history struct{ Messages []json.RawMessage }
	var list struct{ Conversations []json.RawMessage }
	hold("Conversation", json.RawMessage(f.as("ann", GET, path, "", 200, nil).body))
	hold("User", json.RawMessage(f.as("ann", GET, "/v1/me", "", 200, nil).body))
	hold("MemberPage", json.RawMessage(f.as("ann", GET, path+"/members", "", 200, &members).body))
	hold("Member", members.Members[0])
	hold("HistoryPage", json.RawMessage(f.as("ann", GET, path+"/messages", "", 200, &history).body))
	hold("Message", history.Messages[0])
	hold("ConversationPage", json.RawMessage(f.as("ann", GET, "/v1/conversations", "", 200, &list).body))
	hold("Conversation", list.Conversations[0])
	receipts := "/v1/messages/" + string(f.send("ann", cv.ID, "y").ID) + "/receipts"
	var readers struct {
		Counts  json.RawMessage
		Readers []json.RawMessage
	}
	hold("ReceiptPage", json.RawMessage(f.as("ann", GET, receipts, "", 200, &readers).body))
	hold("ReceiptCounts", readers.Counts)
	hold("Reader", readers.Readers[0])
	hold("SyncPage", json.RawMessage(f.as("ann", GET, "/v1/sync", "", 200, nil).body))
	hold("ProblemDetails", json.RawMessage(f.as("eve", GET, path, "", 404, nil).body))
}

func TestDocsPage(t *testing.T) {
	f := start(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	a := f.do(request{method: GET, path: "/docs"})
	if found := regexp.MustCompile(`(?i)(src=|url\(|@import|<script|<link|<iframe|<img|https?://|//[a-z])`).FindAllString(a.body, -1); found != nil {
		t.Errorf("the page wants something from elsewhere: %q", found)
	}
	for _, want := range []string{`lang="en"`, "<title>Parley REST reference</title>", "<main>", "default-src 'none'"} {
		if !strings.Contains(a.body+a.header.Get("Content-Security-Policy"), want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, rt := range routes {
		if !strings.Contains(a.body, `<h3 id="`+rt.name+`">`+rt.method+" "+rt.path+"</h3>") {
			t.Errorf("the page has no %s %s", rt.method, rt.path)
		}
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`id="([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		if anchors[m[1]] {
			t.Errorf("two elements have the id %s", m[1])
		}
		anchors[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		if !anchors[m[1]] {
			t.Errorf("the link #%s leads nowhere", m[1])
		}
	}
}
