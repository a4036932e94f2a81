package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

func TestTextsSayTheirNames(t *testing.T) {
	if name, version := readText(text("u1-2", 7)); name != "u1-2" || version != 7 {
		t.Errorf("read %q %d, want u1-2 7", name, version)
	}
	for _, other := range []string{"", "hello", "hello big world", "[Message deleted]"} {
		if name, version := readText(other); name != "" || version != 0 {
			t.Errorf("%q is read as %q %d, want nothing", other, name, version)
		}
	}
}

func TestRowsOfEvents(t *testing.T) {
	for packet, want := range map[string]history.Row{
		`42["new-message",{"id":"m","conversation_id":"c","sender_id":"u1","content":"u1-2 0 x","type":"text","seq":3,"pos":4},"offset"]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 4, Sender: "u1", Name: "u1-2"},
		`42["message-updated",{"id":"m","conversation_id":"c","sender_id":"u1","content":"u1-2 9 x","type":"text","seq":3,"pos":5}]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 5, Sender: "u1", Name: "u1-2", Version: 9},
		`42["message-deleted",{"message_id":"m","conversation_id":"c","seq":3,"pos":6,"deleted_at":"x"}]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 6, Deleted: true},
		`42["new-message",{"id":"m","conversation_id":"c","sender_id":"u1","content":"[Message deleted]","type":"text","seq":3,"pos":6,"is_deleted":true}]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 6, Sender: "u1", Deleted: true},
		`42["new-message",{"id":"m","conversation_id":"c","sender_id":"u1","content":null,"type":"system","metadata":{"kind":"member-added","user_ids":["u2"]},"seq":3,"pos":6}]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 6, Sender: "u1", System: "member-added", Users: []string{"u2"}},
		`42["new-message",{"id":"m","conversation_id":"c","sender_id":"u1","content":"from nobody","type":"text","seq":3,"pos":6}]`: {
			Conversation: "c", ID: "m", Seq: 3, Pos: 6, Sender: "u1"},
	} {
		name, e, err := readEvent([]byte(packet))
		if err != nil {
			t.Errorf("%s: %v", packet, err)
			continue
		}
		l := history.Line{Kind: name}
		e.into(&l)
		if len(l.Rows) != 1 || !equal(l.Rows[0], want) {
			t.Errorf("%s is recorded as %+v, want %+v", packet, l.Rows, want)
		}
	}
	for _, packet := range []string{`42`, `42[]`, `42[1]`, `42["a",{]`, `42["new-message",{"seq":"1"}]`} {
		if name, e, err := readEvent([]byte(packet)); err == nil {
			t.Errorf("%s is read as %q %+v", packet, name, e)
		}
	}
}

func equal(a, b history.Row) bool {
	users := slices.Equal(a.Users, b.Users)
	one, err := json.Marshal(a)
	two, err2 := json.Marshal(b)
	return users && err == nil && err2 == nil && string(one) == string(two)
}

func TestAcknowledgements(t *testing.T) {
	number, answer, err := readAck([]byte(`4312[{"ok":true}]`))
	if number != 12 || string(answer) != `{"ok":true}` || err != nil {
		t.Errorf("read %d %s %v", number, answer, err)
	}
	for _, packet := range []string{`43`, `43[{}]`, `43x[{}]`, `431[]`, `431[{},{}]`, `431[`} {
		if number, answer, err := readAck([]byte(packet)); err == nil {
			t.Errorf("%s is read as %d %s", packet, number, answer)
		}
	}
}

func TestPagesOfSync(t *testing.T) {
	var page wirePage
	err := json.Unmarshal([]byte(`{"ok":true,"changes":[{"kind":"membership","membership":{"conversation_id":"c","active":true}},{"kind":"conversation","conversation":{}},
		{"kind":"message","message":{"id":"m","conversation_id":"c","seq":1,"pos":2,"content":"u1-1 0 x","sender_id":"u1","type":"text"}},
		{"kind":"membership","membership":{"conversation_id":"d","active":false}}],"cursor":"k","has_more":true}`), &page)
	if err != nil {
		t.Fatal(err)
	}
	var l history.Line
	page.into(&l)
	var kinds []string
	for _, row := range l.Rows {
		kinds = append(kinds, row.Kind+" "+row.Conversation)
	}
	if want := []string{"joined c", " c", "left d"}; !slices.Equal(kinds, want) || l.Cursor != "k" || !l.More || l.Reset {
		t.Errorf("a page is recorded as %q, cursor %q, more %t, reset %t", kinds, l.Cursor, l.More, l.Reset)
	}
}

// A draft is the same to the server however often and wherever it is sent, and a part of them has no id of its client's.
func TestDrafts(t *testing.T) {
	p := &person{name: "u1", tops: map[string]int64{}}
	names := map[string]bool{}
	without := 0
	for range 100 {
		d := p.draft("c")
		names[d.name] = true
		one, err := json.Marshal(d.body())
		if err != nil {
			t.Fatal(err)
		}
		if two, err := json.Marshal(d.body()); err != nil || string(one) != string(two) {
			t.Errorf("a draft is %s, and then %s", one, two)
		}
		if d.clientMessageID == "" {
			without++
		}
	}
	if len(names) != 100 || without != 10 {
		t.Errorf("100 drafts have %d names, and %d no client_message_id, want 100 and 10", len(names), without)
	}
}

func TestBagHasEachFaultOnce(t *testing.T) {
	b := &bag{faults: []world.Fault{{Name: "a"}, {Name: "b"}, {Name: "c"}}, random: rand.New(rand.NewPCG(1, 1))}
	for range 5 {
		var drawn []string
		for range b.faults {
			drawn = append(drawn, b.draw().Name)
		}
		slices.Sort(drawn)
		if !slices.Equal(drawn, []string{"a", "b", "c"}) {
			t.Errorf("drawn %q, want each once", drawn)
		}
	}
}

func TestFaultsLastAsLongAsThereIsTime(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	long := world.Fault{Last: []time.Duration{5 * time.Second, 30 * time.Second}}
	for most, want := range map[time.Duration][]time.Duration{
		time.Second:      {5 * time.Second}, // the shortest that there is
		10 * time.Second: {5 * time.Second},
		time.Minute:      {5 * time.Second, 30 * time.Second},
	} {
		r := &run{options: options{lastMax: most}}
		seen := map[time.Duration]bool{}
		for range 100 {
			seen[r.last(long, random)] = true
		}
		if len(seen) != len(want) || !seen[want[0]] || !seen[want[len(want)-1]] {
			t.Errorf("with %s a fault lasts %v, want %v", most, seen, want)
		}
	}
	if d := (&run{}).last(world.Fault{}, random); d != 0 {
		t.Errorf("a moment lasts %s", d)
	}
}

func TestGate(t *testing.T) {
	var g gate
	g.wait(t.Context()) // It is open.
	g.close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	g.wait(ended) // It does not outlast its context.
	through := make(chan struct{})
	go func() {
		g.wait(t.Context())
		close(through)
	}()
	select {
	case <-through:
		t.Error("a shut gate lets through")
	default:
	}
	g.open()
	<-through
}
