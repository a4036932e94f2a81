package chat

import (
	"fmt"
	"testing"
	"time"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestCursorAt looks for the place of a client by the time and position of the last change that it was told of.
func TestCursorAt(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		var p checkpointer
		began := time.Now().Add(time.Hour) // beyond what the node itself notes meanwhile
		note := func(after time.Duration) {
			t.Helper()
			heads, err := n.readHeads(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := p.note(t.Context(), n.Chat, heads, began.Add(after)); err != nil {
				t.Fatal(err)
			}
		}
		a, b := n.group(t, "ann", "bob"), n.group(t, "ann", "bob")
		for b.ID.Bucket() == a.ID.Bucket() {
			b = n.group(t, "ann", "bob")
		}
		var last Message // that bob got
		for i := range 6 {
			n.send(t, "ann", a.ID, fmt.Sprint("a", i), "")
			last = n.send(t, "ann", b.ID, fmt.Sprint("b", i), "")
			note(time.Duration(i) * 5 * time.Second)
		}
		n.send(t, "ann", a.ID, "a6", "")
		n.send(t, "ann", b.ID, "b6", "")

		// missed is what bob gets who was told of the change at pos, as many seconds after the beginning.
		missed := func(seconds int, bucket id.Bucket, pos int64) (texts []string) {
			t.Helper()
			cursor, found, err := n.CursorAt(t.Context(), began.Add(time.Duration(seconds)*time.Second), bucket, pos)
			if err != nil || !found {
				t.Fatalf("CursorAt %d s: %v, %v", seconds, found, err)
			}
			page, err := n.Sync(t.Context(), "bob", cursor, 0)
			if err != nil || page.Reset {
				t.Fatalf("sync: %+v, %v", page, err)
			}
			for _, ch := range page.Changes {
				if ch.Message != nil {
					texts = append(texts, *ch.Message.Content)
				}
			}
			return texts
		}
		same := func(what string, got []string, want ...string) {
			t.Helper()
			in := map[string]bool{}
			for _, text := range got {
				in[text] = true
			}
			if len(in) != len(got) || len(got) != len(want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
			for _, text := range want {
				if !in[text] {
					t.Errorf("%s: %v, want %v", what, got, want)
				}
			}
		}
		same("told of b5, with all of 16 s: all of b, and of a what is newer than 15 s", missed(16, b.ID.Bucket(), last.Pos), "a4", "a5", "a6", "b6")
		same("told of nothing in b", missed(20, b.ID.Bucket(), 0), "a4", "a5", "a6", "b4", "b5", "b6")
		same("told long after", missed(3600, b.ID.Bucket(), last.Pos), "a6", "b6")

		// Of the same heads there is one checkpoint, and of all only the newest are kept.
		count := func() (checkpoints int) {
			t.Helper()
			err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.One(t.Context(), []any{&checkpoints}, `SELECT COUNT(*) FROM checkpoints WHERE at_ms >= $1`, began.UnixMilli())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return checkpoints
		}
		note(time.Minute)
		had := count()
		note(2 * time.Minute)
		if got := count(); got != had {
			t.Errorf("%d checkpoints after the same heads again, want %d", got, had)
		}
		for i := range checkpointsMax + checkpointsPrune + 1 {
			heads := Positions{a.ID.Bucket(): int64(i)}
			if err := p.note(t.Context(), n.Chat, heads, began.Add(time.Hour+time.Duration(i)*2*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if got := count(); got < checkpointsMax || got >= checkpointsMax+checkpointsPrune {
			t.Errorf("%d checkpoints are kept, want %d or few more", got, checkpointsMax)
		}
		if _, found, err := n.CursorAt(t.Context(), began.Add(30*time.Second), b.ID.Bucket(), last.Pos); found || err != nil {
			t.Errorf("CursorAt before what is kept: %v, %v, want none", found, err)
		}
	})
}
