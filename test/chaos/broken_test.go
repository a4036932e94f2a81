package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The broken builds can be made of the sources as they are.
func TestEditsFit(t *testing.T) {
	for _, b := range brokenBuilds {
		for _, e := range b.edits {
			text, err := e.apply(filepath.Join("../..", e.file))
			if err != nil {
				t.Errorf("%s: %v", b.name, err)
			} else if !strings.Contains(text, e.new) || strings.Contains(text, e.old) && !strings.Contains(e.new, e.old) {
				t.Errorf("%s: %s is not edited", b.name, e.file)
			}
		}
	}
}

func TestEditsWantTheirTextOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.go")
	for text, want := range map[string]bool{"one two": true, "two": false, "one one": false} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		e := textEdit{file: "a.go", old: "one", new: "three"}
		if _, err := e.apply(name); (err == nil) != want {
			t.Errorf("replacing one in %q: %v", text, err)
		}
	}
}
