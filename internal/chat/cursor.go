package chat

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"

	"parley/internal/id"
	"parley/internal/problem"
)

// Positions is a place in some of the logs: everything up to a bucket's position is known. A bucket
// that is not there is known up to nothing.
type Positions map[id.Bucket]int64

const cursorVersion = 1

// Cursor is how far a client has got, as the opaque text that it keeps: the database's epoch and its
// positions, in the buckets that its conversations are in (about 7 bytes for each). It carries no
// authority: whatever it says, its bearer is shown what he may see.
func (c *Chat) Cursor(p Positions) string {
	b := make([]byte, 0, 64+7*len(p))
	b = append(b, cursorVersion, byte(len(c.epoch)))
	b = append(b, c.epoch...)
	for _, bucket := range slices.Sorted(maps.Keys(p)) {
		b = append(b, byte(bucket))
		b = binary.AppendUvarint(b, uint64(p[bucket]))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ErrCursor is the error of a cursor that was not made by [Chat.Cursor].
var ErrCursor = problem.New(problem.BadRequest, "The cursor cannot be read.")

// cursorBytesMax is longer than the longest cursor: 256 buckets with positions of 10 bytes.
const cursorBytesMax = 4096

// parseCursor reads a client's cursor; reset says that it belongs to another history of the database.
// Errors: bad_request.
func (c *Chat) parseCursor(text string) (p Positions, reset bool, err error) {
	if len(text) > cursorBytesMax {
		return nil, false, ErrCursor
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 2 || b[0] != cursorVersion || len(b) < 2+int(b[1]) {
		return nil, false, ErrCursor
	}
	epoch, rest := string(b[2:2+int(b[1])]), b[2+int(b[1]):]
	p = Positions{}
	last := -1
	for len(rest) > 0 {
		bucket := int(rest[0])
		pos, n := binary.Uvarint(rest[1:])
		if bucket <= last || n <= 0 || pos > 1<<62 {
			return nil, false, ErrCursor
		}
		p[id.Bucket(bucket)] = int64(pos)
		last, rest = bucket, rest[1+n:]
	}
	return p, epoch != c.epoch, nil
}
