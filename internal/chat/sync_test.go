package chat

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestSync lets a client catch up in pages of every size with all that can happen behind its back, and
// compares what it then knows with history.
func TestSync(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		old := n.group(t, "ann", "bob")
		edited := n.send(t, "ann", old.ID, "edited", "")
		deleted := n.send(t, "ann", old.ID, "deleted", "")
		left := n.group(t, "ann", "bob")
		page, err := n.Sync(t.Context(), "bob", "", 0)
		if err != nil || len(page.Changes) != 0 || page.HasMore || page.Reset {
			t.Fatalf("the first sync: %+v, %v", page, err)
		}
		cursor := page.Cursor

		joined := n.group(t, "ann")
		for i := range 3 {
			n.send(t, "ann", joined.ID, fmt.Sprintf("before %d", i), "")
		}
		if _, err := n.AddMembers(t.Context(), "ann", string(joined.ID), []string{"bob"}, ""); err != nil {
			t.Fatal(err)
		}
		for i := range 7 {
			n.send(t, "ann", old.ID, fmt.Sprint(i), "")
			n.send(t, "ann", joined.ID, fmt.Sprint(i), "")
		}
		if _, err := n.Edit(t.Context(), "ann", string(edited.ID), "was edited"); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Delete(t.Context(), "ann", string(deleted.ID)); err != nil {
			t.Fatal(err)
		}
		n.send(t, "ann", left.ID, "unseen", "")
		if _, err := n.RemoveMember(t.Context(), "ann", string(left.ID), "bob"); err != nil {
			t.Fatal(err)
		}
		other := n.group(t, "ann") // bob has nothing to do with it
		n.send(t, "ann", other.ID, "secret", "")

		for _, limit := range []int{1, 2, 3, 5, 200} {
			t.Run(fmt.Sprint("limit", limit), func(t *testing.T) {
				messages := map[id.Conversation]map[int64]string{}
				var kinds []string
				at, pages := cursor, 0
				for {
					page, err := n.Sync(t.Context(), "bob", at, limit)
					if err != nil || page.Reset {
						t.Fatalf("page %d: %+v, %v", pages, page, err)
					}
					for _, ch := range page.Changes {
						kinds = append(kinds, ch.Kind)
						switch {
						case ch.Message != nil:
							m := ch.Message
							if messages[m.ConversationID] == nil {
								messages[m.ConversationID] = map[int64]string{}
							}
							text := ""
							if m.Content != nil {
								text = *m.Content
							}
							messages[m.ConversationID][m.Seq] = text
						case ch.Membership != nil && ch.Membership.ConversationID == left.ID && ch.Membership.Active:
							t.Error("the ended membership is active")
						}
					}
					at = page.Cursor
					if pages++; !page.HasMore {
						break
					}
				}
				if limit == 1 && pages < 10 {
					t.Errorf("%d pages of about one change", pages)
				}
				if len(messages[other.ID]) != 0 || len(messages[left.ID]) != 0 {
					t.Errorf("messages of conversations without membership: %v %v", messages[other.ID], messages[left.ID])
				}
				if got := messages[old.ID]; len(got) != 9 || got[1] != "was edited" || got[2] != DeletedContent || got[9] != "6" {
					t.Errorf("the old conversation: %v", got)
				}
				// The three from before, the system message, and seven.
				if got := messages[joined.ID]; len(got) != 11 || got[1] != "before 0" || got[11] != "6" {
					t.Errorf("the joined conversation: %v", got)
				}
				for _, kind := range []string{"membership", "conversation", "message"} {
					if !slices.Contains(kinds, kind) {
						t.Errorf("no %s among the changes", kind)
					}
				}
				if again, err := n.Sync(t.Context(), "bob", at, limit); err != nil || len(again.Changes) != 0 || again.HasMore {
					t.Errorf("after the last page: %+v, %v", again, err)
				}
			})
		}
	}, Check)
}

// TestSyncFindsEverything holds a client that syncs at random moments to history, in many conversations.
func TestSyncFindsEverything(t *testing.T) {
	sqldbtest.Run(t, func(t *testing.T, db *sqldb.DB) {
		n := start(t, db, Options{})
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		var convs []Conversation
		var sent []Message
		known := map[id.Message]string{}
		page, err := n.Sync(t.Context(), "bob", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		cursor := page.Cursor
		sync := func(limit int) bool {
			page, err := n.Sync(t.Context(), "bob", cursor, limit)
			if err != nil || page.Reset {
				t.Fatalf("sync: %+v, %v", page, err)
			}
			for _, ch := range page.Changes {
				if ch.Message != nil && ch.Message.Content != nil {
					known[ch.Message.ID] = *ch.Message.Content
				}
			}
			cursor = page.Cursor
			return page.HasMore
		}
		for i := range 300 {
			switch k := r.IntN(12); {
			case k == 0 || len(convs) == 0:
				convs = append(convs, n.group(t, "ann", "bob"))
			case k < 7:
				sent = append(sent, n.send(t, "ann", convs[r.IntN(len(convs))].ID, fmt.Sprint("m", i), ""))
			case k < 9 && len(sent) > 0:
				if _, err := n.Edit(t.Context(), "ann", string(sent[r.IntN(len(sent))].ID), fmt.Sprint("e", i)); err != nil {
					wantProblem(t, "edit", err, problem.Conflict, "")
				}
			case k < 10 && len(sent) > 0:
				if _, err := n.Delete(t.Context(), "ann", string(sent[r.IntN(len(sent))].ID)); err != nil {
					t.Fatal(err)
				}
			default:
				sync(1 + r.IntN(6))
			}
		}
		for sync(7) {
		}
		for _, cv := range convs {
			page, err := n.History(t.Context(), "bob", string(cv.ID), HistoryRange{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Messages {
				if known[m.ID] != *m.Content {
					t.Errorf("message %d of %s is known as %q, and is %q", m.Seq, m.ConversationID, known[m.ID], *m.Content)
				}
			}
		}
		if len(known) != len(sent) {
			t.Errorf("%d messages known, %d sent", len(known), len(sent))
		}
	}, Check)
}

func TestCursor(t *testing.T) {
	db := sqldbtest.Open(t, sqldb.SQLite, Check)
	n := start(t, db, Options{})
	cv := n.group(t, "ann", "bob")
	for _, p := range []Positions{{}, {0: 0}, {255: 1 << 60, 3: 7}} {
		text := n.Cursor(p)
		tag, back, err := parseCursor(text)
		if err != nil || tag != n.runs.current() || !maps.Equal(p, back) {
			t.Errorf("Cursor(%v) = %q, read back as %v of run %v, %v", p, text, back, tag, err)
		}
	}
	good := n.Cursor(Positions{cv.ID.Bucket(): 1})
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"no base64": "!!", "nothing": "AA", "cut": good[:3], "long": strings.Repeat("A", 5000),
		"another version": base64.RawURLEncoding.EncodeToString(append([]byte{9}, raw[1:]...)),
		"a bucket twice":  base64.RawURLEncoding.EncodeToString(append(slices.Clone(raw), raw[len(raw)-2:]...)),
		"half a position": base64.RawURLEncoding.EncodeToString(append(slices.Clone(raw), 255, 0x80)),
	} {
		_, err := n.Sync(t.Context(), "bob", bad, 0)
		wantProblem(t, name, err, problem.BadRequest, "")
	}
	// Ahead of the log, or of another history, or from when cursors had the epoch: whatever the client has, it is not ours.
	other := slices.Clone(raw)
	other[2] ^= 1
	for name, text := range map[string]string{"ahead": n.Cursor(Positions{cv.ID.Bucket(): 1000}), "another run": base64.RawURLEncoding.EncodeToString(other),
		"epoch": base64.RawURLEncoding.EncodeToString([]byte("\x01\x1aHQ4GLZC2U3YQX7R5S6T1V8W9K0\x07\x02"))} {
		page, err := n.Sync(t.Context(), "bob", text, 0)
		if err != nil || !page.Reset || page.HasMore || page.Cursor == "" {
			t.Errorf("%s: %+v, %v; want a reset", name, page, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(cursorOf(runTag{1, 2, 3, 4, 5, 6, 7, 8}, Positions{1: 2, 200: 1 << 40}))
	f.Fuzz(func(t *testing.T, text string) {
		tag, p, err := parseCursor(text)
		if err != nil || tag == (runTag{}) {
			return
		}
		if same, back, err := parseCursor(cursorOf(tag, p)); err != nil || same != tag || !maps.Equal(p, back) {
			t.Errorf("%q is %v of run %v, which comes back as %v of %v, %v", text, p, tag, back, same, err)
		}
	})
}
