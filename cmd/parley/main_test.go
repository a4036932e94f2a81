package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func command(t *testing.T, args ...string) (code int, out, log string) {
	t.Helper()
	var o, l bytes.Buffer
	code = run(t.Context(), args, &o, &l)
	return code, o.String(), l.String()
}

func TestCommands(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, tt := range []struct {
		args string
		code int
		out  string // part of what is printed
		log  string // part of what is said
	}{
		{"", 0, "parley serve", ""},
		{"--help", 0, "Every setting is a flag", ""},
		{"serve --help", 0, "PARLEY_DATABASE_URL", ""},
		{"--version", 0, "dev", ""},
		{"serv", 2, "", "serve"},
		{"token", 2, "", "--user"},
		{"token --user ann --data " + data, 0, "eyJ", ""},
		{"token --user ann --role king --data " + data, 1, "", "role"},
		{"migrate --check --data " + data, 1, "", "pending"},
		{"migrate --data " + data, 0, "up to date", ""},
		{"migrate --check --data " + data, 0, "", ""},
		{"doctor --data " + data, 0, "keeps its promises", ""},
		{"serve --database-url mysql://x --data " + data, 2, "", "database-url"},
		{"serve --no-such", 2, "", "--no-such"},
	} {
		var args []string
		if tt.args != "" {
			args = strings.Fields(tt.args)
		}
		code, out, log := command(t, args...)
		if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(log, tt.log) {
			t.Errorf("parley %s: exit %d, printed %q, said %q; want %d, %q, %q", tt.args, code, out, log, tt.code, tt.out, tt.log)
		}
	}
}
