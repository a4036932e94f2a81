package rest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/wire"
)

// call is one request to a line of the table.
type call struct {
	*http.Request
	out    *exchange
	route  *route
	user   id.User // for whom it is; empty on an open route
	query  url.Values
	status int // of the answer; a handler may set another of its line's
}

// endpoint is a handler with the types that its schema comes from.
type endpoint struct {
	body, answer reflect.Type // nil: none
	contentType  string       // of the answer
	open         bool         // nobody needs to sign in
	run          func(*face, *call) (any, error)
}

// nothing is the answer without a body, 204.
type nothing struct{}

// reads makes an endpoint of a method that needs no body.
func reads[A any](do func(*face, *call) (A, error)) endpoint {
	return endpoint{
		answer: answerType[A](), contentType: "application/json",
		run: func(f *face, c *call) (any, error) { return do(f, c) },
	}
}

// takes makes an endpoint of a method that needs a body.
func takes[B, A any](do func(*face, *call, B) (A, error)) endpoint {
	return endpoint{
		body: reflect.TypeFor[B](), answer: answerType[A](), contentType: "application/json",
		run: func(f *face, c *call) (any, error) {
			var in B
			if err := f.decode(c, &in); err != nil {
				return nil, err
			}
			return do(f, c, in)
		},
	}
}

// serves makes an endpoint of a method that writes its answer itself.
func serves(contentType string, do func(*face, *call)) endpoint {
	return endpoint{contentType: contentType, run: func(f *face, c *call) (any, error) {
		do(f, c)
		return nil, nil
	}}
}

// open lets everybody call an endpoint.
func open(e endpoint) endpoint {
	e.open = true
	return e
}

func answerType[A any]() reflect.Type {
	if t := reflect.TypeFor[A](); t != reflect.TypeFor[nothing]() {
		return t
	}
	return nil
}

// serve runs a line of the table: who calls, what he wants, the call, the answer.
func (f *face) serve(rt *route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange) // ServeHTTP made it
		x.operation = rt.name
		c := &call{Request: r, out: x, route: rt, status: rt.statuses[0]}
		answer, err := f.answer(c)
		switch {
		case err != nil:
			f.fail(x, r, err)
		case rt.answer != nil:
			raw, err := json.Marshal(answer)
			if err != nil {
				f.fail(x, r, fmt.Errorf("rest: encode: %w", err))
				return
			}
			write(x, c.status, rt.contentType, raw)
		case c.status == http.StatusNoContent:
			x.WriteHeader(c.status)
		}
	}
}

func (f *face) answer(c *call) (_ any, err error) {
	if !c.route.open {
		c.out.Header().Set("Cache-Control", "no-store")
		if c.user, err = f.caller(c.out, c.Request); err != nil {
			return nil, err
		}
	}
	if c.query, err = url.ParseQuery(c.URL.RawQuery); err != nil {
		return nil, problem.New(problem.BadRequest, "The query cannot be read.")
	}
	return c.route.run(f, c)
}

// decode reads a body, which may be absent when nothing in it is needed. Errors: bad_request, too_large.
func (f *face) decode(c *call, v any) error {
	tooLarge := problem.New(problem.TooLarge, fmt.Sprintf("The body has more than %d bytes.", f.BodyBytesMax))
	if c.ContentLength > f.BodyBytesMax {
		return tooLarge
	}
	// The server's own writer, since MaxBytesReader tells it to close the connection.
	raw, err := io.ReadAll(http.MaxBytesReader(c.out.ResponseWriter, c.Body, f.BodyBytesMax))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return tooLarge
	}
	if err != nil {
		return fmt.Errorf("%w: %w", problem.New(problem.BadRequest, "The body could not be read."), err)
	}
	if len(raw) == 0 {
		return nil
	}
	return wire.Decode(raw, v)
}

// param is a query parameter's first value; "" if it is not there. The line of the table must name it.
func (c *call) param(name string) string {
	c.route.param(name)
	return c.query.Get(name)
}

// limit is how many are wanted, within the bounds that the table states. Errors: bad_request.
func (c *call) limit() (int, error) {
	p := c.route.param("limit")
	if !c.query.Has("limit") {
		return p.standard, nil
	}
	n, err := strconv.Atoi(c.query.Get("limit"))
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range it is a number still, and Atoi returns the nearest
		return 0, problem.New(problem.BadRequest, "limit must be a number.")
	}
	return p.clamp(n), nil
}

var errCursor = problem.New(problem.BadRequest, "The page cursor cannot be read.")

// after is what the caller's page cursor stands for; "" for the first page. Errors: bad_request.
func (c *call) after() (string, error) {
	after, err := base64.RawURLEncoding.DecodeString(c.param("cursor"))
	if err != nil {
		return "", errCursor
	}
	return string(after), nil
}

// page is which part of a list is wanted: what follows after ("": from the start), at most limit. Errors: bad_request.
func (c *call) page() (after string, limit int, err error) {
	if limit, err = c.limit(); err != nil {
		return "", 0, err
	}
	after, err = c.after()
	return after, limit, err
}

// userPage is page for a list in the order of user ids.
func (c *call) userPage() (after id.User, limit int, err error) {
	last, limit, err := c.page()
	if err != nil || last == "" {
		return "", limit, err
	}
	if after, err = id.ParseUser(last); err != nil {
		return "", 0, errCursor
	}
	return after, limit, nil
}

// pageCursor is what a client gives back for the page after the one that ended with last; "" for none.
func pageCursor(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }
