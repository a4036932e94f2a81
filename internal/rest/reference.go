package rest

import (
	"bytes"
	_ "embed"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"parley/internal/problem"
)

//go:embed reference.html
var referenceHTML string

var docsTemplate = template.Must(template.New("docs").Parse(referenceHTML))

// html is what GET /docs answers: one page that needs nothing else.
func (ref reference) html() []byte {
	var b bytes.Buffer
	if err := docsTemplate.Execute(&b, ref.page()); err != nil {
		panic("rest: the reference cannot be made: " + err.Error())
	}
	return b.Bytes()
}

// pageView is the reference as templates show it: this page, and docs/reference/rest.md.
type pageView struct {
	Title   string
	Intro   []string // paragraphs
	Groups  []groupView
	Schemas []schemaView
	Codes   []codeView
}

type groupView struct {
	Noun   string
	Routes []routeView
}

type routeView struct {
	*huma.Operation
	Fields   []fieldView // of the path and the query
	Body     *typeView
	Answers  []answerView
	Failures []problem.Code
}

type answerView struct {
	Status int
	Type   *typeView // nil: no body
	Media  string    // of an answer without a schema
}

type schemaView struct {
	Name   string
	Fields []fieldView
}

type fieldView struct {
	Name, In string
	Needed   bool
	Type     typeView
	Doc      string
}

// typeView is a type in words; Schema among them has a section of its own.
type typeView struct{ Before, Schema, After string }

type codeView struct {
	Code    problem.Code
	Status  int
	Meaning string
}

func (ref reference) page() pageView {
	v := pageView{Title: ref.doc.Info.Title + " REST reference", Intro: strings.Split(ref.doc.Info.Description, "\n\n")}
	schemas := ref.doc.Components.Schemas
	for i, op := range ref.operations {
		rt := &routes[i]
		if n := len(v.Groups); n == 0 || v.Groups[n-1].Noun != rt.noun {
			v.Groups = append(v.Groups, groupView{Noun: rt.noun})
		}
		r := routeView{Operation: op, Failures: rt.failures()}
		for _, p := range op.Parameters {
			r.Fields = append(r.Fields, fieldView{Name: p.Name, In: p.In, Needed: p.Required, Type: typeOf(p.Schema), Doc: p.Description})
		}
		if op.RequestBody != nil {
			t := typeOf(op.RequestBody.Content["application/json"].Schema)
			r.Body = &t
		}
		for _, status := range rt.statuses {
			a := answerView{Status: status}
			for media, content := range op.Responses[strconv.Itoa(status)].Content { // one at most
				a.Media = media
				if content.Schema != nil {
					t := typeOf(content.Schema)
					a.Type = &t
				}
			}
			r.Answers = append(r.Answers, a)
		}
		g := &v.Groups[len(v.Groups)-1]
		g.Routes = append(g.Routes, r)
	}
	for name, s := range schemas.Map() {
		sv := schemaView{Name: name}
		for _, f := range jsonFields(schemas.TypeFromRef(schemaPrefix + name)) {
			p := s.Properties[f.name]
			sv.Fields = append(sv.Fields, fieldView{Name: f.name, Needed: slices.Contains(s.Required, f.name), Type: typeOf(p), Doc: p.Description})
		}
		v.Schemas = append(v.Schemas, sv)
	}
	slices.SortFunc(v.Schemas, func(a, b schemaView) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range allCodes() {
		v.Codes = append(v.Codes, codeView{c, c.Status(), meanings[c]})
	}
	return v
}

// typeOf says a schema in words.
func typeOf(s *huma.Schema) typeView {
	var t typeView
	switch {
	case s.Ref != "":
		t.Schema = strings.TrimPrefix(s.Ref, schemaPrefix)
	case s.Type == huma.TypeArray:
		t = typeOf(s.Items)
		t.Before = "list of " + t.Before
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i], _ = e.(string)
		}
		t.Before = strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	case s.Format == "date-time":
		t.Before = "time"
	default:
		t.Before = s.Type
	}
	if s.Nullable {
		t.After += " or null"
	}
	return t
}

// meanings of the codes that routes of the table can answer.
var meanings = map[problem.Code]string{
	problem.BadRequest:       "The request is not as it must be: a wrong type, a value out of its bounds, text that is not Unicode. It will fail again.",
	problem.NotAuthenticated: "No token or API key, or not one that counts.",
	problem.TokenExpired:     "The token was good until it expired. Get a new one.",
	problem.Forbidden:        "The caller sees the thing, and may not do this to it.",
	problem.NotFound:         "It does not exist, or the caller may not know that it does.",
	problem.MethodNotAllowed: "The route takes other methods: Allow names them.",
	problem.Conflict:         "It contradicts what is there.",
	problem.TooLarge:         "The body is longer than the server takes.",
	problem.Internal:         "A fault of the server's. The log has its cause, under request_id.",
	problem.Overloaded:       "Too much waits already. Try again after Retry-After.",
	problem.Unavailable:      "The server cannot do it now. Try again after Retry-After.",
	problem.StorageFull:      "There is no room on the server's disk. What is stored can be read.",
}

// allCodes are those that the table can answer, in the order of their statuses.
func allCodes() []problem.Code {
	all := []problem.Code{problem.MethodNotAllowed}
	for i := range routes {
		for _, c := range routes[i].failures() {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b problem.Code) int { return a.Status() - b.Status() })
	return all
}
