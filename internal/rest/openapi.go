package rest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const schemaPrefix = "#/components/schemas/"

const apiDescription = `Conversations, members, messages and what changed since a cursor.

Ids and cursors are opaque texts; user ids are the application's own, 1 to 128 bytes. Times are RFC 3339 in UTC with milliseconds. Fields that are not known are ignored, by the server and, please, by its clients: fields are added. A failure is a problem (RFC 9457) whose code is stable, and every response carries X-Request-Id.

Sign in with "Authorization: Bearer" and a token, or, as the application's own server, with X-API-Key and, in X-Parley-User, the id of the user to act for; where both are sent, the key counts.`

// signIn are the two ways; either will do.
var signIn = []map[string][]string{{"bearer": {}}, {"api_key": {}, "acting_user": {}}}

// reference is all that can be said of the table: as OpenAPI 3.1, and with what its JSON cannot hold, the order of
// routes and fields.
type reference struct {
	doc        *huma.OpenAPI
	operations []*huma.Operation // in the order of the table
}

func describe() reference {
	r := huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)
	ref := reference{doc: &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info:    &huma.Info{Title: "Parley", Version: "1", Description: apiDescription, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
		Components: &huma.Components{Schemas: r, SecuritySchemes: map[string]*huma.SecurityScheme{
			"bearer":      {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A token whose sub is the user's id."},
			"api_key":     {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "For the application's own server."},
			"acting_user": {Type: "apiKey", In: "header", Name: "X-Parley-User", Description: "The user whom the bearer of an API key acts for."},
		}},
	}}
	problemSchema := r.Schema(reflect.TypeFor[problemDetails](), true, "")
	for i := range routes {
		op := routes[i].operation(r, problemSchema)
		ref.doc.AddOperation(op)
		ref.operations = append(ref.operations, op)
		if n := len(ref.doc.Tags); n == 0 || ref.doc.Tags[n-1].Name != routes[i].noun {
			ref.doc.Tags = append(ref.doc.Tags, &huma.Tag{Name: routes[i].noun})
		}
	}
	for name, s := range r.Map() {
		straighten(s, name, r.TypeFromRef(schemaPrefix+name))
	}
	return ref
}

// openAPI is what GET /openapi.json answers.
func (ref reference) openAPI() []byte {
	raw, err := json.MarshalIndent(ref.doc, "", "  ")
	if err != nil {
		panic("rest: the OpenAPI document cannot be encoded: " + err.Error())
	}
	return raw
}

var pathParams = regexp.MustCompile(`\{(\w+)\}`)

// operation says in OpenAPI what the line says.
func (rt *route) operation(r huma.Registry, problemSchema *huma.Schema) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: rt.name, Tags: []string{rt.noun}, Summary: rt.summary,
		Responses: map[string]*huma.Response{},
	}
	if !rt.open {
		op.Security = signIn
	}
	for _, at := range pathParams.FindAllStringSubmatchIndex(rt.path, -1) {
		before, name := rt.path[:at[0]], rt.path[at[2]:at[3]]
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: name, In: "path", Required: true, Description: pathWords(before, name), Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, p := range rt.params {
		op.Parameters = append(op.Parameters, p.openAPI())
	}
	if rt.body != nil {
		body := r.Schema(rt.body, true, "")
		op.RequestBody = &huma.RequestBody{
			// Nothing need be said where every field may be left out.
			Required: len(r.SchemaFromRef(body.Ref).Required) > 0,
			Content:  map[string]*huma.MediaType{"application/json": {Schema: body}},
		}
	}
	for _, status := range rt.statuses {
		success := &huma.Response{Description: http.StatusText(status)}
		switch {
		case rt.answer != nil:
			success.Content = map[string]*huma.MediaType{rt.contentType: {Schema: r.Schema(rt.answer, true, "")}}
		case status != http.StatusNoContent:
			success.Content = map[string]*huma.MediaType{rt.contentType: {}}
		}
		op.Responses[strconv.Itoa(status)] = success
	}
	for _, c := range rt.failures() {
		status := strconv.Itoa(c.Status())
		if had := op.Responses[status]; had != nil {
			had.Description += ", " + string(c)
			continue
		}
		op.Responses[status] = &huma.Response{
			Description: string(c),
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problemSchema}},
		}
	}
	return op
}

func (p param) openAPI() *huma.Param {
	out := &huma.Param{Name: p.name, In: "query", Description: p.doc, Required: p.required}
	switch {
	case p.most > 0:
		// No maximum: what lies beyond the bounds is brought back to them.
		out.Description += " From 1 to " + strconv.Itoa(p.most) + "; what lies beyond is taken for the nearest."
		out.Schema = &huma.Schema{Type: huma.TypeInteger, Default: p.standard}
	case p.required:
		out.Schema = &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
		no := false
		out.Explode = &no
	default:
		out.Schema = &huma.Schema{Type: huma.TypeString}
	}
	return out
}

// straighten makes a schema say what is true of our JSON: fields may be added, lists are never null, what is a pointer
// may be (huma knows that of scalars only), raw JSON is an object or null, and a field has words.
func straighten(s *huma.Schema, name string, t reflect.Type) {
	s.AdditionalProperties = nil
	for _, f := range jsonFields(t) {
		p := s.Properties[f.name]
		if p.Description == "" {
			p.Description = fieldWords[name+"."+f.name]
		}
		switch {
		case f.Type == reflect.TypeFor[json.RawMessage]():
			*p = huma.Schema{Type: huma.TypeObject, Nullable: true, Description: p.Description}
		case p.Type == huma.TypeArray:
			p.Nullable = false
		case f.Type.Kind() == reflect.Pointer && p.Ref == "" && !f.optional:
			p.Nullable = true
		}
	}
}

// jsonField is a field of a struct under the name that it has in JSON.
type jsonField struct {
	reflect.StructField
	name     string
	optional bool
}

// jsonFields are those that a schema shows, in the order of the source.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "" || name == "-" || f.Tag.Get("hidden") == "true" {
			continue
		}
		fields = append(fields, jsonField{f, name, slices.Contains(strings.Split(options, ","), "omitempty")})
	}
	return fields
}
