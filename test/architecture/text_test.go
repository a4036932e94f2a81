package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// machineNames is what is true of one machine only: homes and work trees on it, and where it gets its packages from.
var machineNames = regexp.MustCompile(`(?m)(^|[\s"'` + "`" + `(=:])(/root/|/work/|/home/\w+/|/Users/\w+/|C:\\)|registry\.npmjs|proxy\.golang|deb\.debian`)

// written matches the files that people write. This one is none of them, for it holds what it looks for.
func written(name string) bool {
	switch path.Ext(name) {
	case ".go", ".js", ".mjs", ".ts", ".json", ".md", ".sql", ".sh", ".yaml", ".yml", ".txtar", ".html", ".css":
		return name != "test/architecture/text_test.go"
	}
	return name == "Makefile" || name == ".ci/run"
}

// allowed is the comment that excuses a line from the rules for tests.
const allowed = "// allowed: "

func TestTestsNeitherSkipNorSleep(t *testing.T) {
	tr := readTree(t)
	for _, f := range tr.sources {
		if !f.test {
			continue
		}
		lines := strings.Split(tr.read(t, f.path), "\n")
		for call, why := range skipsAndSleeps(f.syntax) {
			if line := lines[tr.fset.Position(call.Pos()).Line-1]; !strings.Contains(line, allowed) {
				t.Errorf("%s: %s; if it must be, say why: %swhy", tr.line(call), why, allowed)
			}
		}
	}
}

// skipsAndSleeps finds calls of t.Skip and its kin, and of time.Sleep.
func skipsAndSleeps(f *ast.File) map[*ast.CallExpr]string {
	found := map[*ast.CallExpr]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on, _ := selector.X.(*ast.Ident)
		switch name := selector.Sel.Name; {
		case on == nil:
		case name == "Skip" || name == "Skipf" || name == "SkipNow":
			found[call] = "a test that skips itself is one that nobody misses"
		case on.Name == "time" && name == "Sleep":
			found[call] = "a test waits for a condition with a deadline, and does not sleep"
		}
		return true
	})
	return found
}

func TestNoFileKnowsAMachine(t *testing.T) {
	tr := readTree(t)
	for _, name := range tr.paths {
		if !written(name) {
			continue
		}
		text := tr.read(t, name)
		for _, at := range machineNames.FindAllStringIndex(text, -1) {
			t.Errorf("%s:%d: %q is a name on one machine", name, 1+strings.Count(text[:at[0]], "\n"), strings.TrimSpace(text[at[0]:at[1]]))
		}
	}
}

// skippedScript finds what keeps a test of node's runner from running, or all others.
var skippedScript = regexp.MustCompile(`\b(test|it|describe|suite|t)\.(skip|todo|only)\b|\b(skip|todo|only):\s*(true|['"` + "`" + `])`)

func TestScriptsDoNotSkip(t *testing.T) {
	tr := readTree(t)
	for _, name := range tr.paths {
		if ext := path.Ext(name); ext != ".js" && ext != ".mjs" {
			continue
		}
		for i, line := range strings.Split(tr.read(t, name), "\n") {
			if skippedScript.MatchString(line) && !strings.Contains(line, allowed) {
				t.Errorf("%s:%d: %q keeps tests from running; if it must be, say why: %swhy", name, i+1, strings.TrimSpace(line), allowed)
			}
		}
	}
}

// What links looks for: the target of a link or picture of Markdown, outside of code.
var (
	link       = regexp.MustCompile(`\]\(([^()\s]+)(?:\s+"[^"]*")?\)`)
	fencedCode = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
)

// links lists the link targets of a page that lie in this tree, as paths from the root.
func links(page, text string) (targets []string) {
	text = inlineCode.ReplaceAllString(fencedCode.ReplaceAllString(text, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		u, err := url.Parse(m[1])
		if err != nil {
			targets = append(targets, m[1]) // nothing has such a name, and the test will say so
			continue
		}
		if u.IsAbs() || u.Path == "" {
			continue
		}
		targets = append(targets, path.Join(path.Dir(page), u.Path))
	}
	return targets
}

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	tr := readTree(t)
	for _, page := range tr.paths {
		if path.Ext(page) != ".md" {
			continue
		}
		for _, target := range links(page, tr.read(t, page)) {
			if _, err := os.Stat(filepath.Join(tr.root, filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: a link leads to %s, which does not exist", page, target)
			}
		}
	}
}

func TestTheseTestsSee(t *testing.T) {
	for text, want := range map[string]bool{
		"see /root/x": true, `"/home/ann/parley"`: true, "(/work" + "/main)": true, "https://registry." + "npmjs.org/x": true,
		"GET /v1/work/items": false, "/usr/lib/postgresql": false, "the root/leaf": false,
	} {
		if got := machineNames.MatchString(text); got != want {
			t.Errorf("machineNames in %q = %t, want %t", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"it.skip('x', f)": true, "test('x', { skip: true }, f)": true, "test.only('x', f)": true, "{ todo: 'later' }": true,
		"test('x', f)": false, "skip: false": false, "audit.skip()": false, "{ skip: n }": false,
	} {
		if got := skippedScript.MatchString(text); got != want {
			t.Errorf("skippedScript in %q = %t, want %t", text, got, want)
		}
	}
	source := "package p\nfunc f(t T) { t.Skip(); t.Skipf(``); time.Sleep(1); time.After(1); s.Sleep() }\n"
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := skipsAndSleeps(f); len(got) != 3 {
		t.Errorf("skipsAndSleeps found %d calls in %q, want 3", len(got), source)
	}
	got := links("docs/a.md", "[x](b.md#part) [y](../README.md) [z](https://example.org) `[c](d.md)`\n```\n[e](f.md)\n```\n[g](#here)")
	if want := []string{"docs/b.md", "README.md"}; !slices.Equal(got, want) {
		t.Errorf("links = %q, want %q", got, want)
	}
}
