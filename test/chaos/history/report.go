package history

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// The kinds of violations, each of a promise of the wire contract, section 3.
const (
	Lost        = "lost"             // 1: an acknowledged send is in no history
	EarlyAck    = "ack before fsync" // 1: an acknowledgement came sooner than a sync can have ended
	Doubled     = "doubled"          // 2: one send became two messages, one place has two, or an event came twice
	Reordered   = "reordered"        // 3: seqs do not follow the order of what happened, or came in another
	Gap         = "gap"              // 4: a client that kept its cursor did not get what it should have
	Stale       = "stale"            // 5: a read lacks what was known before it began
	Hole        = "hole"             // 5: seqs of a final history are not 1, 2, 3 ...
	Phantom     = "phantom"          // 6: something appeared that nobody sent, or that was refused
	Undone      = "undone"           // 7: an acknowledged edit or deletion did not stick
	Leak        = "leak"             // 8: one who is no member got, or did, something
	Backwards   = "receipt"          // 9: a receipt went back
	Unavailable = "unavailable"      // after the last harm was undone, sends were not acknowledged in time
)

// Violation is one broken promise.
type Violation struct {
	Kind  string   `json:"kind"`
	What  string   `json:"what"`
	Lines []int64  `json:"lines"`           // of the record, that show it
	Texts []string `json:"texts,omitempty"` // those lines
}

// Report is what a record shows.
type Report struct {
	Operations     map[string]map[Phase]int `json:"operations"`        // by kind and outcome
	Refusals       map[string]int           `json:"refusals"`          // by code
	Events         map[string]int           `json:"events"`            // by name
	Faults         map[string]int           `json:"faults"`            // by name
	Messages       int                      `json:"messages"`          // that were seen by anybody
	Devices        int                      `json:"devices"`           // clients that were found to have, or not to have, all that they should
	AckedAfter     time.Duration            `json:"acked_after_nanos"` // the longest from a healing to an acknowledgement, on any node
	SlowAcks       int                      `json:"slow_acks"`         // acknowledgements that had to take a time, as syncs were slow
	SoonestSlowAck time.Duration            `json:"soonest_slow_ack_nanos"`
	Found          map[string]int           `json:"found"`      // violations by kind, those that are not kept included
	Violations     []Violation              `json:"violations"` // the first few of those that are alike
}

// violationsKept is how many of those that are alike a report tells of.
const violationsKept = 5

// Check judges a record. open is called twice: to read it, and to find the lines that show violations.
func Check(open func() (io.ReadCloser, error)) (Report, error) {
	in, err := open()
	if err != nil {
		return Report{}, err
	}
	defer in.Close() // It was only read.
	c := NewChecker()
	if err := Read(in, func(l *Line, _ []byte) { c.Add(l) }); err != nil {
		return Report{}, err
	}
	report := c.Finish()
	if len(report.Violations) == 0 {
		return report, nil
	}
	wanted := map[int64]string{}
	for _, v := range report.Violations {
		for _, n := range v.Lines {
			wanted[n] = ""
		}
	}
	again, err := open()
	if err != nil {
		return report, err
	}
	defer again.Close() // As above.
	const textBytesMax = 600
	err = Read(again, func(l *Line, text []byte) {
		if _, found := wanted[l.N]; found {
			wanted[l.N] = fmt.Sprintf("%d: %s", l.N, bytes.ToValidUTF8(text[:min(len(text), textBytesMax)], nil))
		}
	})
	for i := range report.Violations {
		v := &report.Violations[i]
		for _, n := range v.Lines {
			v.Texts = append(v.Texts, wanted[n])
		}
	}
	return report, err
}

// String tells people what the record shows.
func (r Report) String() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(r.Operations)) {
		outcomes := r.Operations[kind]
		fmt.Fprintf(&b, "  %-9s %7d", kind, outcomes[Invoke])
		for _, p := range []Phase{OK, Fail} {
			fmt.Fprintf(&b, ", %s %d", p, outcomes[p])
		}
		fmt.Fprintf(&b, ", unknown %d\n", outcomes[Invoke]-outcomes[OK]-outcomes[Fail])
	}
	fmt.Fprintf(&b, "  refusals: %s\n  events: %s\n  faults: %s\n  messages: %d; clients that were compared with the final history: %d; longest from a healing to an acknowledgement: %s\n",
		counts(r.Refusals), counts(r.Events), counts(r.Faults), r.Messages, r.Devices, r.AckedAfter.Round(time.Millisecond))
	if r.SlowAcks > 0 {
		fmt.Fprintf(&b, "  acknowledgements while syncs were slow: %d, the soonest after %s\n", r.SlowAcks, r.SoonestSlowAck)
	}
	fmt.Fprintf(&b, "  violations: %s\n", counts(r.Found))
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "  %s: %s\n", v.Kind, v.What)
		for _, text := range v.Texts {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	return b.String()
}

func counts(m map[string]int) string {
	if len(m) == 0 {
		return "none"
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}
