package gateway

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/events.md")

func TestReferenceIsUpToDate(t *testing.T) {
	const page = "../../docs/reference/events.md"
	var b strings.Builder
	if err := Reference(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the tables say (%v): go test ./internal/gateway -update", page, err)
	}
}
