package architecture

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rulesPage holds the rules, in a fenced block of the language "imports".
const rulesPage = "docs/ARCHITECTURE.md"

// rules are the block, read: who may import what of this module, and which imports have owners.
type rules struct {
	may    map[string][]string // package -> packages it may import; "tests" is for all test files besides
	owners map[string][]string // import path or its beginning -> the packages that may have it
}

// readRules reads the block of the page. Its format is explained there, above it.
func readRules(page string) (rules, error) {
	_, rest, found := strings.Cut(page, "\n```imports\n")
	block, _, closed := strings.Cut(rest, "\n```")
	if !found || !closed {
		return rules{}, fmt.Errorf("no block that begins with ```imports")
	}
	r := rules{may: map[string][]string{}, owners: map[string][]string{}}
	groups := map[string][]string{"nothing": {}}
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 {
			return rules{}, fmt.Errorf("%q has no right side; write nothing if that is meant", line)
		}
		var right []string
		for _, word := range words[2:] {
			if members, ok := groups[word]; ok {
				right = append(right, members...)
			} else {
				right = append(right, word)
			}
		}
		kind := map[string]map[string][]string{"=": groups, "->": r.may, "<-": r.owners}[words[1]]
		if kind == nil {
			return rules{}, fmt.Errorf("%q has none of = -> <- as its second word", line)
		}
		if _, twice := kind[words[0]]; twice {
			return rules{}, fmt.Errorf("%q has two lines", words[0])
		}
		kind[words[0]] = right
	}
	return r, nil
}

// refuse says what is wrong with an import, or nothing.
func (r rules) refuse(pkg string, test bool, path string) string {
	name, ours := strings.CutPrefix(path, module+"/")
	if ours {
		name = folderName(name)
		allowed := r.may[pkg]
		if test {
			allowed = slices.Concat(allowed, r.may["tests"])
		}
		if name != pkg && !slices.Contains(allowed, name) {
			return fmt.Sprintf("%s may not import %s", pkg, name)
		}
	} else {
		name = path
	}
	if test {
		return "" // a test may speak to what it tests with the libraries of its owners
	}
	for owned, owners := range r.owners {
		if (name == owned || strings.HasPrefix(name, owned+"/")) && !slices.Contains(owners, pkg) && pkg != owned {
			return fmt.Sprintf("%s may not import %s, which is for %s alone", pkg, name, strings.Join(owners, ", "))
		}
	}
	return ""
}

func TestImportsObeyTheRules(t *testing.T) {
	tr := readTree(t)
	r, err := readRules(tr.read(t, rulesPage))
	if err != nil {
		t.Fatalf("%s: %v", rulesPage, err)
	}
	packages := map[string]bool{}
	for _, f := range tr.sources {
		packages[f.pkg] = true
		for _, i := range f.syntax.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := r.refuse(f.pkg, f.test, path); why != "" {
				t.Errorf("%s: %s, says %s", tr.line(i), why, rulesPage)
			}
		}
	}
	for pkg := range packages {
		if _, listed := r.may[pkg]; !listed {
			t.Errorf("%s has no line for the package %s", rulesPage, pkg)
		}
	}
	// A name that nothing has any more is a rule that no longer says what its reader thinks.
	named := map[string]bool{}
	for pkg, right := range r.may {
		for _, name := range append([]string{pkg}, right...) {
			named[name] = true
		}
	}
	for _, owners := range r.owners {
		for _, name := range owners {
			named[name] = true
		}
	}
	delete(named, "tests")
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !packages[name] {
			t.Errorf("%s names %s, and there is no such package", rulesPage, name)
		}
	}
}

func TestRulesRefuse(t *testing.T) {
	r, err := readRules(`
# A page

` + "```imports" + `
ground = id sqldb   # two
id     -> nothing
sqldb  -> nothing
chat   -> ground
rest   -> chat
tests  -> sqldb/sqldbtest

example.org/driver <- sqldb
` + "```" + `
more words
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pkg     string
		test    bool
		path    string
		refused bool
	}{
		{"chat", false, "parley/internal/id", false},
		{"chat", false, "parley/internal/rest", true},
		{"rest", false, "parley/internal/sqldb", true},
		{"id", false, "parley/internal/sqldb", true},
		{"chat", true, "parley/internal/chat", false},
		{"chat", true, "parley/internal/sqldb/sqldbtest", false},
		{"chat", false, "parley/internal/sqldb/sqldbtest", true},
		{"unlisted", false, "parley/internal/id", true},
		{"chat", false, "net/http", false},
		{"sqldb", false, "example.org/driver", false},
		{"chat", false, "example.org/driver", true},
		{"chat", false, "example.org/driver/v2", true},
		{"chat", false, "example.org/drivers", false},
		{"chat", true, "example.org/driver", false},
	} {
		if why := r.refuse(c.pkg, c.test, c.path); (why != "") != c.refused {
			t.Errorf("refuse(%s, test %t, %s) = %q, want refused: %t", c.pkg, c.test, c.path, why, c.refused)
		}
	}
}

func TestRulesThatCannotBeRead(t *testing.T) {
	for _, block := range []string{"chat ->", "chat id", "chat => id", "chat -> id\nchat -> sqldb"} {
		if r, err := readRules("\n```imports\n" + block + "\n```\n"); err == nil {
			t.Errorf("readRules(%q) = %v, want an error", block, r)
		}
	}
	if _, err := readRules("# No block\n"); err == nil {
		t.Error("readRules of a page without a block = nil, want an error")
	}
}
