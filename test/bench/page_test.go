package bench

import "testing"

func TestReportTakesItsPlaceInAPage(t *testing.T) {
	marks := MarksOf("x")
	inner := marks.Begin + "\nnew\n" + marks.End
	for _, c := range []struct{ page, want string }{
		{"", inner + "\n"},
		{"# Title\n", "# Title\n\n" + inner + "\n"},
		{"# Title\n" + marks.Begin + "\nold\n" + marks.End + "\nmore\n", "# Title\n" + inner + "\nmore\n"},
	} {
		got, err := marks.replace(c.page, "new\n")
		if err != nil || got != c.want {
			t.Errorf("replace(%q) = %q, %v, want %q", c.page, got, err, c.want)
		}
	}
	for _, page := range []string{marks.Begin, marks.End, marks.End + marks.Begin} {
		if got, err := marks.replace(page, "new"); err == nil {
			t.Errorf("replace(%q) = %q, want an error", page, got)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[float64]string{0: "0", -0.2: "0", 999.4: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := Grouped(n); got != want {
			t.Errorf("Grouped(%g) = %s, want %s", n, got, want)
		}
	}
}
