package wire

import (
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Time is milliseconds since 1970 in UTC, as the database has it; on the wire it is RFC 3339 with
// milliseconds.
type Time int64

const layout = "2006-01-02T15:04:05.000Z"

// At is t cut to milliseconds.
func At(t time.Time) Time { return Time(t.UnixMilli()) }

// Time is the same moment for the standard library.
func (t Time) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// MarshalJSON writes the time.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.Time().AppendFormat(make([]byte, 0, len(layout)+2), `"`+layout+`"`), nil
}

// UnmarshalJSON reads any RFC 3339 time.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("wire: a time is a string")
	}
	v, err := time.Parse(time.RFC3339, string(b[1:len(b)-1]))
	if err != nil {
		return fmt.Errorf("wire: a time is RFC 3339: %w", err)
	}
	*t = At(v)
	return nil
}

// Schema tells OpenAPI what a time looks like.
func (Time) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

var _ huma.SchemaProvider = Time(0)
