package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is the import path of the tree's root.
const module = "parley"

// notOurs are folders whose content is made, downloaded or private.
var notOurs = []string{".git", ".cache", "bin", "data", "node_modules", "testdata"}

// sourceFile is a Go file, read and parsed.
type sourceFile struct {
	path   string // from the root, with slashes
	pkg    string // its folder, as the rules write it: without "internal/"
	test   bool
	syntax *ast.File
}

// tree is all that the tests look at.
type tree struct {
	root    string
	paths   []string // of all files, from the root, with slashes
	sources []sourceFile
	fset    *token.FileSet
}

// readTree reads the module that this test is in.
func readTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{root: filepath.Join("..", ".."), fset: token.NewFileSet()}
	err := filepath.WalkDir(tr.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(notOurs, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(tr.root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		tr.paths = append(tr.paths, rel)
		if path.Ext(rel) != ".go" {
			return nil
		}
		syntax, err := parser.ParseFile(tr.fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		tr.sources = append(tr.sources, sourceFile{path: rel, pkg: folderName(path.Dir(rel)),
			test: strings.HasSuffix(rel, "_test.go"), syntax: syntax})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tr.root, "go.mod")); err != nil || len(tr.sources) == 0 {
		t.Fatalf("no module at %s (%d Go files): %v", tr.root, len(tr.sources), err)
	}
	return tr
}

func (tr *tree) read(t *testing.T, rel string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tr.root, filepath.FromSlash(rel)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// line is where node begins, as "path:line".
func (tr *tree) line(node ast.Node) string {
	p := tr.fset.Position(node.Pos())
	rel, err := filepath.Rel(tr.root, p.Filename)
	if err != nil {
		rel = p.Filename
	}
	p.Filename, p.Column = filepath.ToSlash(rel), 0
	return p.String()
}

// folderName is a folder as the rules write it.
func folderName(folder string) string { return strings.TrimPrefix(folder, "internal/") }
