package socketio

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"testing"
	"unicode/utf8"
)

func TestParsePacket(t *testing.T) {
	for _, c := range []struct {
		text string
		want received
	}{
		{"0", received{kind: '0', id: noAck}},
		{`0{"token":"1"}`, received{kind: '0', id: noAck, data: []byte(`{"token":"1"}`)}},
		{"0/admin,", received{kind: '0', namespace: []byte("/admin"), id: noAck}},
		{"0/admin", received{kind: '0', namespace: []byte("/admin"), id: noAck}},
		{`2["a"]`, received{kind: '2', id: noAck, data: []byte(`["a"]`)}},
		{`2/admin,12["a"]`, received{kind: '2', namespace: []byte("/admin"), id: 12, data: []byte(`["a"]`)}},
		{`30[]`, received{kind: '3', id: 0, data: []byte(`[]`)}},
		{`510-/a,0["a"]`, received{kind: '5', attachments: 10, namespace: []byte("/a"), id: 0, data: []byte(`["a"]`)}},
		{`61-9007199254740991[]`, received{kind: '6', attachments: 1, id: ackIDMax, data: []byte(`[]`)}},
	} {
		if c.want.namespace == nil {
			c.want.namespace = []byte("/")
		}
		got, err := parsePacket([]byte(c.text), 10)
		if len(got.data) == 0 {
			got.data = nil
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("parsePacket(%q) = %+v, %v, want %+v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "7", "x", "5", "5-", "50-", "511-", "51", "5x-", "2" + "9007199254740992", "29999999999999999999"} {
		if got, err := parsePacket([]byte(text), 10); err != errMalformed {
			t.Errorf("parsePacket(%q) = %+v, %v, want errMalformed", text, got, err)
		}
	}
}

func TestNewPacket(t *testing.T) {
	for _, c := range []struct {
		namespace, event string
		args             []any
		want             string
	}{
		{"/", "a", nil, `2["a"]`},
		{"/admin", "a", []any{1, "<b>&", nil, json.RawMessage(`{"x": 1}`), map[string]int{"y": 2}}, `2/admin,["a",1,"<b>&",null,{"x": 1},{"y":2}]`},
		{"/", "grüße \"\n\x7f", nil, `2["grüße \"\n` + "\x7f" + `"]`},
		{"/", "bin", []any{[]byte{1}, 2, []byte(nil)}, `52-["bin",{"_placeholder":true,"num":0},2,{"_placeholder":true,"num":1}]`},
	} {
		p, err := NewPacket(c.namespace, c.event, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := packetText(p); got != c.want {
			t.Errorf("NewPacket(%q, %q, %v) is %q, want %q", c.namespace, c.event, c.args, got, c.want)
		}
		// What we write, we read.
		back, err := parsePacket([]byte(c.want), 10)
		elements, ok := splitArray(nil, back.data, 100)
		if name, isString := stringValue(elements[0]); err != nil || !ok || !isString || name != c.event || string(back.namespace) != c.namespace {
			t.Errorf("%q reads back as %q in %q", c.want, name, back.namespace)
		}
	}
	if _, err := NewPacket("/", "a", func() {}); err == nil {
		t.Error("NewPacket took a function")
	}
	if got := packetText(NewRawPacket("/x", "e", []byte("1"), []byte(`{"a":[]}`))); got != `2/x,["e",1,{"a":[]}]` {
		t.Errorf("NewRawPacket: %q", got)
	}
	if got := testing.AllocsPerRun(100, func() { NewRawPacket("/", "new-message", []byte(`{"id":"1"}`)) }); got > 4 {
		t.Errorf("NewRawPacket makes %v allocations, want at most 4", got)
	}
}

// packetText returns the packet without the framing of WebSocket and of Engine.IO.
func packetText(p *Packet) string {
	return string(p.text.Data())
}

func TestSplitArrayLimit(t *testing.T) {
	if got, ok := splitArray(nil, []byte(`[1,2,3]`), 3); !ok || len(got) != 3 {
		t.Errorf("three of three: %s, %v", got, ok)
	}
	if got, ok := splitArray(nil, []byte(`[1,2,3]`), 2); ok {
		t.Errorf("three of two: %s", got)
	}
}

// FuzzSplitArray compares with encoding/json.
func FuzzSplitArray(f *testing.F) {
	for _, seed := range []string{
		`[]`, ` [ 1 , "a" ] `, `["a",{"b":[true,false,null]},-0.5e+3]`, `[01]`, `["\u00e9\n\"",""]`, `[1,]`, `[,1]`, `[1 2]`, `{"a":1}`, `[{"a" : 1, "b":{}}]`,
		"[\"\x01\"]", `["\x"]`, `[-]`, `[1.]`, `[1e]`, `[tru]`, `["a]`, `[[[[]]]]`, `[]x`, "[\"\xff\"]", `[{"a":1,}]`, `[{1:2}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want []json.RawMessage
		valid := json.Unmarshal(data, &want) == nil && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("["))
		got, ok := splitArray(nil, data, 1<<30)
		if ok != valid && bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) < jsonDepthMax {
			t.Fatalf("splitArray(%q): %v, encoding/json: %v", data, ok, valid)
		}
		if !ok {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("splitArray(%q) = %q, want %q", data, got, want)
		}
		if few, ok := splitArray(nil, data, len(want)-1); ok && len(want) > 0 || len(few) > max(len(want)-1, 0) {
			t.Fatalf("splitArray(%q) within %d elements: %q, %v", data, len(want)-1, few, ok)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("element %d of %q: %q, want %q", i, data, got[i], want[i])
			}
		}
		if isObject(data) {
			t.Fatalf("%q is both an array and an object", data)
		}
	})
}

// FuzzPacket: no text makes the parser panic; what it accepts it splits into parts of the text, within the limits, and their plain form is
// split in the same way.
func FuzzPacket(f *testing.F) {
	for _, seed := range []string{`2["a",1]`, `0/admin,{"token":"x"}`, `52-/x,7["a",{"_placeholder":true,"num":1}]`, "41", "3", `2/,["a"]`, "2/admin", "500002-/,/x", "2007[]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePacket(data, 10)
		if err != nil {
			return
		}
		binary := p.kind == packetBinaryEvent || p.kind == packetBinaryAck
		if p.attachments > 10 || (p.attachments > 0) != binary || p.id > ackIDMax || p.id < noAck || len(p.namespace) > namespaceBytesMax ||
			p.namespace[0] != '/' || bytes.IndexByte(p.namespace, ',') >= 0 || !bytes.HasSuffix(data, p.data) {
			t.Fatalf("parsePacket(%q) = %+v", data, p)
		}
		plain := []byte{p.kind}
		if binary {
			plain = append(strconv.AppendInt(plain, int64(p.attachments), 10), '-')
		}
		plain = append(append(plain, p.namespace...), ',')
		if p.id != noAck {
			plain = strconv.AppendInt(plain, p.id, 10)
		}
		plain = append(plain, p.data...)
		if again, err := parsePacket(plain, 10); err != nil || !bytes.Equal(again.namespace, p.namespace) || !bytes.Equal(again.data, p.data) ||
			again.kind != p.kind || again.id != p.id || again.attachments != p.attachments {
			t.Fatalf("parsePacket(%q) = %+v, but of its plain form %q: %+v, %v", data, p, plain, again, err)
		}
		elements, ok := splitArray(nil, p.data, 256)
		if !ok || len(elements) == 0 {
			return
		}
		if name, ok := stringValue(elements[0]); ok {
			var want string
			// What is not UTF-8 encoding/json replaces; the engine has refused it.
			if err := json.Unmarshal(elements[0], &want); err != nil || name != want && utf8.Valid(elements[0]) {
				t.Fatalf("stringValue(%s) = %q, want %q, %v", elements[0], name, want, err)
			}
		}
		attachments := [][]byte{{1}, {2}}
		valid := placeholdersValid(p.data, len(attachments))
		for _, arg := range inline(elements, attachments) {
			if !json.Valid(arg) {
				t.Fatalf("inline of %q: %q", p.data, arg)
			}
		}
		var value any
		if json.Unmarshal(p.data, &value) == nil && placeholdersIn(value, len(attachments)) != valid {
			t.Fatalf("placeholdersValid(%q) = %v", p.data, valid)
		}
	})
}
