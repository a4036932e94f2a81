package chat

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
)

// Positions is a place in some of the logs: everything up to a bucket's position is known. A bucket
// that is not there is known up to nothing.
type Positions map[id.Bucket]int64

// Beyond are those positions of p that lie beyond q's; nil: none does.
func (p Positions) Beyond(q Positions) (beyond Positions) {
	for b, pos := range p {
		if pos > q[b] {
			if beyond == nil {
				beyond = Positions{}
			}
			beyond[b] = pos
		}
	}
	return beyond
}

const (
	cursorVersion = 2
	// epochVersion are cursors with the database's epoch, which a restored backup has as well. They are understood, and no more.
	epochVersion = 1
)

// Cursor is how far a client has got, as the opaque text that it keeps: the tag of this node's run and
// positions, in the buckets that its conversations are in (about 7 bytes for each). It carries no
// authority: whatever it says, its bearer is shown what he may see.
//
// p are positions that the Feed has handled since Parts.Lost was last called, or that [Chat.CatchUp] gave for such.
func (c *Chat) Cursor(p Positions) string { return cursorOf(c.runs.current(), p) }

func cursorOf(tag runTag, p Positions) string {
	b := make([]byte, 0, 1+len(tag)+7*len(p))
	b = append(b, cursorVersion)
	b = append(b, tag[:]...)
	return base64.RawURLEncoding.EncodeToString(p.append(b))
}

// append encodes the positions behind b, in the order of their buckets.
func (p Positions) append(b []byte) []byte {
	for _, bucket := range slices.Sorted(maps.Keys(p)) {
		b = append(b, byte(bucket))
		b = binary.AppendUvarint(b, uint64(p[bucket]))
	}
	return b
}

// ErrCursor is the error of a cursor that was not made by [Chat.Cursor].
var ErrCursor = problem.New(problem.BadRequest, "The cursor cannot be read.")

// cursorBytesMax is longer than the longest cursor: 256 buckets with positions of 10 bytes.
const cursorBytesMax = 4096

// parseCursor reads a client's cursor; one with an epoch has the tag of no run. Errors: bad_request.
func parseCursor(text string) (tag runTag, p Positions, err error) {
	if len(text) > cursorBytesMax {
		return tag, nil, ErrCursor
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	switch {
	case err == nil && len(b) > 1 && b[0] == epochVersion:
		return tag, nil, nil
	case err != nil || len(b) < 1+len(tag) || b[0] != cursorVersion:
		return tag, nil, ErrCursor
	}
	copy(tag[:], b[1:])
	p, ok := readPositions(b[1+len(tag):])
	if !ok {
		return tag, nil, ErrCursor
	}
	return tag, p, nil
}

func readPositions(b []byte) (p Positions, ok bool) {
	p = Positions{}
	last := -1
	for len(b) > 0 {
		bucket := int(b[0])
		pos, n := binary.Uvarint(b[1:])
		if bucket <= last || n <= 0 || pos > 1<<62 {
			return nil, false
		}
		p[id.Bucket(bucket)] = int64(pos)
		last, b = bucket, b[1+n:]
	}
	return p, true
}

// place reads a client's cursor; reset says that it lies in another history than the database's present one. to are
// positions that are known to have been committed in that; what lies beyond them is compared with the heads. Errors: bad_request.
func (c *Chat) place(ctx context.Context, tx *sqldb.Tx, cursor string, to Positions) (from Positions, reset bool, err error) {
	tag, from, err := parseCursor(cursor)
	if err != nil || tag == (runTag{}) {
		return nil, true, err
	}
	r, err := c.findRun(ctx, tx, tag)
	if err != nil {
		return nil, false, err
	}
	if r.known && !r.ended && !from.within(to) {
		// Another node may be ahead of this one.
		if to, err = selectHeads(ctx, tx); err != nil {
			return nil, false, err
		}
	}
	return from, !r.holds(from, to), nil
}
