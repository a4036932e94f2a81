package architecture

import (
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

// sentencesMin is what a package comment has at least: what it is for, what it promises, what is not in it.
const sentencesMin = 3

var (
	sentenceEnd = regexp.MustCompile(`[.:)](\s|$)`)
	promises    = regexp.MustCompile(`(?m)^# (Promises|Invariants)$`)
	notHere     = regexp.MustCompile(`(?m)^# Not here$`)
	tables      = regexp.MustCompile(`(?m)^# Tables$`)
)

// missing lists what a package comment lacks. A command's reader wants its usage, so it needs no headings.
func missing(comment string, command, ownsTables bool) []string {
	var lacks []string
	if n := len(sentenceEnd.FindAllString(comment, -1)); !command && n < sentencesMin || n == 0 {
		lacks = append(lacks, "sentences that say what it is for")
	}
	if command {
		return lacks
	}
	if !promises.MatchString(comment) {
		lacks = append(lacks, `the heading "# Promises" or "# Invariants"`)
	}
	if !notHere.MatchString(comment) {
		lacks = append(lacks, `the heading "# Not here"`)
	}
	if ownsTables && !tables.MatchString(comment) {
		lacks = append(lacks, `the heading "# Tables", for it has a file of queries`)
	}
	return lacks
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	tr := readTree(t)
	type facts struct {
		doc                 *ast.CommentGroup
		command, ownsTables bool
	}
	packages := map[string]*facts{}
	for _, f := range tr.sources {
		folder := path.Dir(f.path)
		p := packages[folder]
		if p == nil {
			p = &facts{}
			packages[folder] = p
		}
		if f.test {
			continue
		}
		command := f.syntax.Name.Name == "main"
		p.command = p.command || command
		p.ownsTables = p.ownsTables || strings.HasSuffix(f.path, "_sql.go")
		place := path.Base(f.path)
		switch {
		case f.syntax.Doc == nil:
		case place == "doc.go", command && place == "main.go":
			p.doc = f.syntax.Doc
		default:
			t.Errorf("%s: a package comment belongs into doc.go", tr.line(f.syntax.Doc))
		}
	}
	for folder, p := range packages {
		if p.doc == nil {
			t.Errorf("%s: no package comment in doc.go", folder)
			continue
		}
		for _, what := range missing(p.doc.Text(), p.command, p.ownsTables) {
			t.Errorf("%s: the package comment lacks %s", folder, what)
		}
	}
}

func TestMissingInAPackageComment(t *testing.T) {
	const whole = "Package x owns the xs.\n\n# Promises\n  - An x stays.\n\n# Tables\nxs.\n\n# Not here\nThe ys (package y).\n"
	for _, c := range []struct {
		comment             string
		command, ownsTables bool
		want                int
	}{
		{whole, false, true, 0},
		{strings.Replace(whole, "# Promises", "# Invariants", 1), false, true, 0},
		{strings.Replace(whole, "# Tables\nxs.", "", 1), false, true, 1},
		{strings.Replace(whole, "# Tables\nxs.", "", 1), false, false, 0},
		{strings.Replace(whole, "# Not here", "Not here:", 1), false, true, 1},
		{"Package x does x.", false, false, 3},
		{"Command x does x.", true, false, 0},
		{"", true, false, 1},
	} {
		if got := missing(c.comment, c.command, c.ownsTables); len(got) != c.want {
			t.Errorf("missing(%q, %t, %t) = %q, want %d things", c.comment, c.command, c.ownsTables, got, c.want)
		}
	}
}
