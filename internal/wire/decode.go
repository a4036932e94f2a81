package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"parley/internal/problem"
)

// depthMax is how deep arrays and objects may stand in each other.
const depthMax = 32

// Decode reads one JSON value into v. Unknown fields are ignored.
// Errors: a [problem.BadRequest] that names the field at fault, not what stood in it.
func Decode(raw []byte, v any) error {
	if err := check(raw); err != nil {
		return err
	}
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && te.Field != "" {
		return problem.New(problem.BadRequest, fmt.Sprintf("The field %s has the wrong type.", te.Field))
	}
	if pe, ok := errors.AsType[*problem.Error](err); ok {
		return pe
	}
	return problem.New(problem.BadRequest, "The request is not the JSON that was expected.")
}

// check finds what encoding/json would let pass in silence: bytes that are not UTF-8 and lone
// surrogates (RFC 8259, section 8.2) become U+FFFD there; NUL no database takes.
func check(raw []byte) error {
	if !utf8.Valid(raw) {
		return problem.New(problem.BadRequest, "The request is not UTF-8.")
	}
	depth := 0
	inString := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case !inString:
			switch c {
			case '"':
				inString = true
			case '{', '[':
				if depth++; depth > depthMax {
					return problem.New(problem.BadRequest, "The request is nested too deeply.")
				}
			case '}', ']':
				depth--
			}
		case c == '"':
			inString = false
		case c == '\\':
			i++
			if i >= len(raw) || raw[i] != 'u' {
				continue
			}
			u, ok := unit(raw, i+1)
			if !ok {
				continue // json says it better
			}
			i += 4
			switch {
			case u == 0:
				return problem.New(problem.BadRequest, "The request holds a NUL character.")
			case u >= 0xdc00 && u <= 0xdfff:
				return problem.New(problem.BadRequest, "The request holds half of a surrogate pair.")
			case u >= 0xd800 && u <= 0xdbff:
				low, ok := uint16(0), false
				if bytes.HasPrefix(raw[i+1:], []byte(`\u`)) {
					low, ok = unit(raw, i+3)
				}
				if !ok || low < 0xdc00 || low > 0xdfff {
					return problem.New(problem.BadRequest, "The request holds half of a surrogate pair.")
				}
				i += 6
			}
		}
	}
	return nil
}

// unit reads the four hex digits of a \u escape at i.
func unit(raw []byte, i int) (uint16, bool) {
	if i+4 > len(raw) {
		return 0, false
	}
	var u uint16
	for _, c := range raw[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | uint16(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | uint16(c-'a'+10)
		case c >= 'A' && c <= 'F':
			u = u<<4 | uint16(c-'A'+10)
		default:
			return 0, false
		}
	}
	return u, true
}
