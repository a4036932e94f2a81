package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Marks are the lines that a report stands between on its page; the rest of the page is people's.
type Marks struct{ Begin, End string }

// MarksOf returns the marks of the report with this name.
func MarksOf(name string) Marks {
	return Marks{"<!-- " + name + ":begin -->", "<!-- " + name + ":end -->"}
}

// replace puts text between the marks of page, or at its end, with marks, if it has none.
func (m Marks) replace(page, text string) (string, error) {
	text = m.Begin + "\n" + strings.TrimRight(text, "\n") + "\n" + m.End
	before, rest, begun := strings.Cut(page, m.Begin)
	_, after, ended := strings.Cut(rest, m.End)
	switch {
	case begun && ended:
		return before + text + after, nil
	case begun || strings.Contains(page, m.End):
		return "", fmt.Errorf("the page has not both of %s and %s, in this order", m.Begin, m.End)
	case page == "":
		return text + "\n", nil
	default:
		return strings.TrimRight(page, "\n") + "\n\n" + text + "\n", nil
	}
}

// Write writes text into the page at path, which need not exist.
func (m Marks) Write(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	whole, err := m.replace(string(page), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(whole), 0o644)
}

// Circumstances say what figures hold for: the machine, the run, the commit.
func Circumstances(c Cores, command string) []string {
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
		fmt.Sprintf("Commit %s, %s, by `%s`.", commit, time.Now().UTC().Format("2006-01-02"), strings.TrimSpace(command)),
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

// PerSecond writes a rate for people.
func PerSecond(n, seconds float64) string { return Grouped(n/seconds) + "/s" }

// Grouped writes a number for people: rounded, with a comma before each three digits.
func Grouped(n float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(n))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if n <= -0.5 {
		return "-" + digits
	}
	return digits
}

// Millis writes a duration in milliseconds.
func Millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// Median is the middle of some values, of which there is one at least; the upper of two.
func Median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
