package chat

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOrder tells commits late, twice, in any order or never, with reads of the log in between, and holds
// the order to its promise: each position once, in order, without a gap.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// The log: commits of one to three positions, of which each holds a change or (an aborted use) not.
		var log []Commit
		head := rapid.Int64Range(0, 5).Draw(t, "start")
		o := order{applied: head}
		first := head
		for range rapid.IntRange(1, 90).Draw(t, "commits") {
			c := Commit{Prev: head, Pos: head + rapid.Int64Range(1, 3).Draw(t, "positions")}
			for p := c.Prev + 1; p <= c.Pos; p++ {
				c.Changes = append(c.Changes, Change{Pos: p})
			}
			head = c.Pos
			log = append(log, c)
		}
		var got []int64
		now := time.Unix(0, 0)
		apply := func(ready []Commit) {
			for _, c := range ready {
				for _, ch := range c.Changes {
					got = append(got, ch.Pos)
				}
			}
		}
		// read is what readLog answers: a few of what is beyond applied, as one commit.
		read := func() {
			upTo := min(head, o.applied+rapid.Int64Range(1, 200).Draw(t, "read"))
			c := Commit{Prev: o.applied, Pos: upTo}
			for p := c.Prev + 1; p <= upTo; p++ {
				c.Changes = append(c.Changes, Change{Pos: p})
			}
			apply(o.offer(c, now))
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
				read()
				continue
			}
			now = now.Add(time.Millisecond)
			apply(o.offer(rapid.SampledFrom(log).Draw(t, "told"), now))
			if len(o.held) > heldMax {
				t.Fatalf("%d commits held", len(o.held))
			}
			if o.overdue(now) && len(o.held) < heldMax && now.Sub(o.since) < holeWait {
				t.Fatalf("overdue after %v", now.Sub(o.since))
			}
			if len(o.held) > 0 && !o.overdue(now.Add(holeWait)) {
				t.Fatal("a hole is never overdue")
			}
		}
		for o.applied < head {
			read()
		}
		if len(o.held) != 0 {
			t.Errorf("%d commits still held at the head", len(o.held))
		}
		var want []int64
		for p := first + 1; p <= head; p++ {
			want = append(want, p)
		}
		if !slices.Equal(got, want) {
			t.Errorf("applied %v, want %v", got, want)
		}
	})
}
