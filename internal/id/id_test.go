package id

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestIDsCarryTheirBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bucket(rapid.Byte().Draw(t, "bucket"))
		at := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "ms"))
		m := NewMessage(b, at)
		u, err := uuid.Parse(string(m))
		if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 {
			t.Fatalf("NewMessage = %q: version %v, variant %v, %v", m, u.Version(), u.Variant(), err)
		}
		if sec, ns := u.Time().UnixTime(); time.Unix(sec, ns).UnixMilli() != at.UnixMilli() {
			t.Errorf("%q has the time %d.%09d, want %v", m, sec, ns, at)
		}
		back, err := ParseMessage(string(m))
		if err != nil || back.Bucket() != b {
			t.Errorf("ParseMessage(%q).Bucket() = %d, %v; want %d", m, back.Bucket(), err, b)
		}
	})
}

func TestParseRefusesWhatIsNotCanonical(t *testing.T) {
	good := string(NewConversation(7, time.Now()))
	for _, s := range []string{
		"", "x", good + "a", good[:35], strings.ToUpper(good), "{" + good[:34] + "}",
		strings.Replace(good, "-", "_", 1), good[:14] + "4" + good[15:], good[:19] + "c" + good[20:],
		"00000000-0000-0000-0000-000000000000", good[:35] + "\x00", good[:35] + "'",
	} {
		if s == good {
			continue // an id without letters is its own upper case
		}
		if _, err := ParseConversation(s); err == nil {
			t.Errorf("ParseConversation(%q) took it", s)
		}
	}
}

func TestPairIsTheSameEitherWayRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := User(rapid.String().Draw(t, "a")), User(rapid.String().Draw(t, "b"))
		b1, k1 := PairBucket(a, b)
		b2, k2 := PairBucket(b, a)
		if b1 != b2 || k1 != k2 {
			t.Errorf("PairBucket(%q,%q) = %d %q, the other way %d %q", a, b, b1, k1, b2, k2)
		}
	})
	if _, k1 := PairBucket("ab", "c"); k1 == func() string { _, k := PairBucket("a", "bc"); return k }() {
		t.Error("two pairs share a key")
	}
}

func TestParseUser(t *testing.T) {
	for s, ok := range map[string]bool{
		"ann": true, "": false, "ann\x00": false, "a\nb": false, "\xff": false, "名前": true,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": true,
	} {
		if _, err := ParseUser(s); (err == nil) != ok {
			t.Errorf("ParseUser(%q): %v, want ok %v", s, err, ok)
		}
	}
}
