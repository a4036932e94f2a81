package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"parley/internal/problem"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{`{"s":"hello"}`, true},
		{`{"s":"\ud83d\ude00"}`, true},
		{`{"s":"\\ud83d"}`, true}, // an escaped backslash
		{`{"s":"😀","unknown":1}`, true},
		{`{"s":"\ud83d"}`, false},
		{`{"s":"\ude00"}`, false},
		{`{"s":"\ud83d\u0041"}`, false},
		{`{"s":"\ud83dx"}`, false},
		{`{"s":"\u0000"}`, false},
		{"{\"s\":\"\xff\"}", false},
		{`{"s":1}`, false},
		{`{"s":["a"]}`, false},
		{`[]`, false},
		{``, false},
		{`{"s":"a"`, false},
		{`{"s":"a"} x`, false},
		{`{"s":"a\`, false},
		{`{"s":"\u12`, false},
		{`{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, false},
		{`{"s":"` + strings.Repeat("[", 40) + `"}`, true},
	} {
		var v struct {
			S string `json:"s"`
		}
		err := Decode([]byte(tt.in), &v)
		if (err == nil) != tt.ok {
			t.Errorf("Decode(%.60s): %v, want ok %v", tt.in, err, tt.ok)
		}
		if pe, is := errors.AsType[*problem.Error](err); err != nil && (!is || pe.Code != problem.BadRequest) {
			t.Errorf("Decode(%.60s): %v is no bad_request", tt.in, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"s":"\ud83d\ude00"}`))
	f.Add([]byte(`{"s":"\ud83d"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v struct {
			S string `json:"s"`
		}
		if Decode(in, &v) != nil {
			return
		}
		if !utf8.ValidString(v.S) || strings.ContainsRune(v.S, 0) {
			t.Errorf("Decode(%q) let %q pass", in, v.S)
		}
		// What is replaced must have been meant: U+FFFD comes out only where it went in.
		if strings.ContainsRune(v.S, utf8.RuneError) && !strings.Contains(string(in), "\ufffd") && !strings.Contains(strings.ToLower(string(in)), `\ufffd`) {
			t.Errorf("Decode(%q) made a replacement character", in)
		}
	})
}

func TestTime(t *testing.T) {
	at := At(time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.FixedZone("", 3600)))
	b, err := json.Marshal(at)
	if err != nil || string(b) != `"2026-03-04T04:06:07.089Z"` {
		t.Fatalf("Marshal = %s, %v", b, err)
	}
	var back Time
	if err := json.Unmarshal(b, &back); err != nil || back != at {
		t.Errorf("Unmarshal(%s) = %d, %v; want %d", b, back, err, at)
	}
	for _, bad := range []string{`1`, `""`, `"yesterday"`, `null x`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("Unmarshal(%s) took it", bad)
		}
	}
}
