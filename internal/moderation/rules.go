package moderation

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Verdict is what the rules say of a text.
type Verdict struct {
	Flagged bool
	Reason  string // for moderators; empty when not flagged
}

// Rules is a fixed list of words. The zero value flags nothing.
type Rules struct{ words map[string]bool }

// NewRules takes the words that flag a message.
func NewRules(words []string) *Rules {
	r := &Rules{words: make(map[string]bool, len(words))}
	for _, w := range words {
		if w = fold(strings.TrimSpace(w)); w != "" {
			r.words[w] = true
		}
	}
	return r
}

// Judge looks for the words in text.
func (r *Rules) Judge(text string) Verdict {
	if len(r.words) == 0 || text == "" {
		return Verdict{}
	}
	for w := range strings.FieldsFuncSeq(fold(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsNumber(c) && !unicode.IsMark(c) }) {
		if r.words[w] {
			return Verdict{Flagged: true, Reason: "Content contains inappropriate language"}
		}
	}
	return Verdict{}
}

// fold brings a text to one case and one width (Unicode Standard Annex 15, NFKC; full case folding).
func fold(s string) string {
	ascii := true
	for i := range len(s) {
		if s[i] >= 0x80 {
			ascii = false
			break
		}
	}
	if ascii {
		return strings.ToLower(s)
	}
	return cases.Fold().String(norm.NFKC.String(s))
}
