package gateway

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"parley/internal/chat"
	"parley/internal/id"
)

// TestTrail sends a client changes of a few buckets and cursors, lets it receive and confirm some of them, breaks the
// connection at any moment, and compares the place that the trail finds with what the client has got.
func TestTrail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buckets := []id.Bucket{0, 7, 255}
		var tr trail
		var sent []mark // packet i is sent[i]; 0 is one that the trail does not know
		next := map[id.Bucket]int64{}
		cursors := uint32(0)
		received, pinged, confirmed := 0, 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				b := rapid.SampledFrom(buckets).Draw(t, "bucket")
				next[b] += int64(rapid.IntRange(1, 3).Draw(t, "step"))
				for range rapid.IntRange(1, 2).Draw(t, "packets") {
					sent = append(sent, markOf(b, next[b]))
					tr.add(markOf(b, next[b]))
				}
			},
			"cursor": func(*rapid.T) {
				cursors++
				sent = append(sent, markOfCursor(cursors))
				tr.add(markOfCursor(cursors))
			},
			"other":   func(*rapid.T) { sent = append(sent, 0) },
			"receive": func(t *rapid.T) { received = rapid.IntRange(received, len(sent)).Draw(t, "received") },
			"ping":    func(*rapid.T) { pinged = len(sent) },
			"pong": func(*rapid.T) {
				received, confirmed = max(received, pinged), max(confirmed, pinged)
			},
			"confirm": func(*rapid.T) { tr.confirm(uint64(len(sent)), uint64(confirmed)) },
			"break": func(t *rapid.T) {
				got, last := map[id.Bucket]int64{}, mark(0)
				for i, m := range sent[:received] {
					if m == 0 {
						continue
					}
					b, pos, ok := m.change()
					// Of a position told in two packets only the last one says so.
					if i+1 < len(sent) && sent[i+1] == m {
						continue
					}
					last = m
					if ok {
						got[b] = pos
					}
				}
				at := chat.Positions{}
				for b, pos := range next {
					at[b] = pos
					if slices.Contains(tr.marks, markOf(b, pos)) {
						at[b] -= int64(rapid.IntRange(0, 1).Draw(t, "lag")) // it was read before this was sent
					}
				}
				copied := tr
				copied.marks = slices.Clone(tr.marks)
				copied.place(at, last)
				for b := range next {
					// What lies in between is nothing of the client's.
					for pos := min(at[b], got[b]) + 1; pos <= max(at[b], got[b]); pos++ {
						if slices.Contains(sent, markOf(b, pos)) {
							t.Fatalf("bucket %d: the place is %d, the client has got %d of %v, trail %v", b, at[b], got[b], sent, tr.marks)
						}
					}
				}
			},
		})
	})
}

// TestTrailRaise has a lane in the middle of a commit of which the client was sent a part.
func TestTrailRaise(t *testing.T) {
	var tr trail
	for _, m := range []mark{markOf(3, 6), markOfCursor(1), markOf(7, 2), markOf(3, 8)} {
		tr.add(m)
	}
	at := chat.Positions{3: 5, 7: 9}
	tr.raise(at)
	if want := (chat.Positions{3: 8, 7: 9}); !maps.Equal(at, want) {
		t.Errorf("raised to %v, want %v", at, want)
	}
}
