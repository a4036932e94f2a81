package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The report stands between these lines of its page; the rest of the page is people's.
const (
	beginMark = "<!-- bench:begin -->"
	endMark   = "<!-- bench:end -->"
)

// report is the table: a row for each measure, a column for each database.
type report struct {
	databases []string
	measures  []string // in the order in which they were added
	values    map[[2]string]string
	bars      map[string]string
	facts     []string // what the figures hold for
}

func newReport(databases []string) *report {
	return &report{databases: databases, values: map[[2]string]string{}, bars: map[string]string{}}
}

func (r *report) add(database, measure, value, bar string) {
	if _, known := r.bars[measure]; !known {
		r.measures = append(r.measures, measure)
		r.bars[measure] = bar
	}
	r.values[[2]string{database, measure}] = value
}

// markdown is the report as it is written.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| measure | %s | bar |\n|---|%s---|\n", strings.Join(r.databases, " | "), strings.Repeat("---|", len(r.databases)))
	for _, measure := range r.measures {
		fmt.Fprintf(&b, "| %s |", measure)
		for _, database := range r.databases {
			value := r.values[[2]string{database, measure}]
			if value == "" {
				value = "–"
			}
			fmt.Fprintf(&b, " %s |", value)
		}
		fmt.Fprintf(&b, " %s |\n", r.bars[measure])
	}
	b.WriteString("\n")
	for _, fact := range r.facts {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	return b.String()
}

// replaceReport puts text between the marks of page, or at its end, with marks, if it has none.
func replaceReport(page, text string) (string, error) {
	text = beginMark + "\n" + strings.TrimRight(text, "\n") + "\n" + endMark
	before, rest, begun := strings.Cut(page, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	switch {
	case begun && ended:
		return before + text + after, nil
	case begun || strings.Contains(page, endMark):
		return "", fmt.Errorf("the page has not both of %s and %s, in this order", beginMark, endMark)
	case page == "":
		return text + "\n", nil
	default:
		return strings.TrimRight(page, "\n") + "\n\n" + text + "\n", nil
	}
}

// writeReport writes text into the page at path, which need not exist.
func writeReport(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	whole, err := replaceReport(string(page), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(whole), 0o644)
}

// circumstances say what the figures hold for.
func circumstances(c cores, command string) []string {
	commit := "unknown"
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	kernel := "unknown"
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	return []string{
		fmt.Sprintf("Machine: %d cores, %s; %s; %s.", runtime.NumCPU(), cpuModel(), kernel, runtime.Version()),
		fmt.Sprintf("Run: %s; load generator and server on the same machine, over loopback, without TLS.", c),
		fmt.Sprintf("Commit %s, %s, by `%s`.", commit, time.Now().UTC().Format("2006-01-02"), command),
		"Every send is acknowledged after its commit; the clients count every delivery, and a run in which one is lost or comes twice fails.",
	}
}

// cpuModel is the first processor's name in /proc/cpuinfo.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

func perSecond(n, seconds float64) string { return grouped(n/seconds) + "/s" }

// grouped writes a number for people: rounded, with a comma before each three digits.
func grouped(n float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(n))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if n <= -0.5 {
		return "-" + digits
	}
	return digits
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
