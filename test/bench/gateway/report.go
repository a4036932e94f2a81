package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"parley/test/bench"
)

// results are the figures of all rounds.
type results struct {
	values   map[key][]float64
	windows  map[key]int    // the best of a contender; of keys without a figure
	failures map[key]string // likewise
}

// key says which figure: in a scenario, for one of its variants, of a contender.
type key struct {
	scenario string
	variant  int
	who      string
	figure   string
}

func newResults() *results {
	return &results{values: map[key][]float64{}, windows: map[key]int{}, failures: map[key]string{}}
}

// median returns NaN for what was not measured.
func (r *results) median(k key) float64 {
	values := r.values[k]
	if len(values) == 0 {
		return math.NaN()
	}
	return bench.Median(values)
}

// pickWindows takes each contender's best window for its figures, by the deliveries for a CPU-second: the smallest of those that are as good
// to a few percent.
func (r *results) pickWindows(z sizes) {
	const gain = 1.03
	best := map[key]float64{}
	for _, window := range z.windows {
		for k := range r.values {
			if k.figure != atWindow(perCPUSecond, window) {
				continue
			}
			value := r.median(k)
			k.figure = ""
			if value > gain*best[k] {
				best[k], r.windows[k] = value, window
			}
		}
	}
	for k, window := range r.windows {
		for _, figure := range []string{perCPUSecond, perSecond, serverCore, loadCore} {
			r.values[key{k.scenario, k.variant, k.who, figure}] = r.values[key{k.scenario, k.variant, k.who, atWindow(figure, window)}]
		}
	}
}

// bar is a figure that Parley means to reach, as a ratio to another's.
type bar struct {
	least, most float64 // one of them is 0
}

func (b bar) String() string {
	if b.least > 0 {
		return fmt.Sprintf("≥ %.3g ×", b.least)
	}
	return fmt.Sprintf("≤ %.3g ×", b.most)
}

func (b bar) met(ratio float64) string {
	if ratio >= b.least && (b.most == 0 || ratio <= b.most) {
		return "met"
	}
	return "**not met**"
}

// row is one figure in the report, with what it is held to.
type row struct {
	scenario string
	figure   string
	label    func(z sizes, variant int) string
	format   func(value float64) string
	ours     []string                         // who is compared
	bars     func(variant int) map[string]bar // by contender
	absolute func(who string) (most float64)  // 0: none
	notes    func(r *results, k key) []string // beside the value
}

// rows are the report, in order.
var rows = []row{
	{scenario: "saturated", figure: perCPUSecond, format: bench.Grouped, ours: []string{gateway}, label: saturatedLabel("its best window"),
		bars: saturatedBars,
		notes: func(r *results, k key) []string {
			window := fmt.Sprintf("window %d", r.windows[key{scenario: k.scenario, variant: k.variant, who: k.who}])
			return append([]string{window, bench.Grouped(r.of(k, perSecond)) + "/s"}, r.cores(k)...)
		}},
	{scenario: "saturated", figure: atWindow(perCPUSecond, 1), format: bench.Grouped, ours: []string{gateway}, label: saturatedLabel("window 1")},
	{scenario: "saturated", figure: atWindow(perCPUSecond, 8), format: bench.Grouped, ours: []string{gateway}, label: saturatedLabel("window 8")},
	{scenario: "latency", figure: p50, format: milliseconds, ours: []string{gateway, whole}, label: latencyLabel("p50"), bars: latencyBars},
	{scenario: "latency", figure: p99, format: milliseconds, ours: []string{gateway, whole}, label: latencyLabel("p99"), bars: latencyBars,
		notes: func(r *results, k key) []string {
			return append([]string{bench.Grouped(r.of(k, perSecond)) + "/s"}, r.cores(k)...)
		}},
	{scenario: "idle", figure: held, format: bench.Grouped, ours: []string{gateway, whole},
		label: func(z sizes, count int) string {
			return fmt.Sprintf("resident bytes of each of %s idle connections in %d rooms, %s after the last came", bench.Grouped(float64(count)), z.idleRooms, z.idleSettle)
		},
		bars:     func(int) map[string]bar { return map[string]bar{node: {most: 0.45}, centrifuge: {most: 0.25}} },
		absolute: func(who string) float64 { return map[string]float64{whole: 6500}[who] }},
	{scenario: "idle", figure: heldAtLeast, format: bench.Grouped, ours: []string{gateway},
		label: func(sizes, int) string { return "the same, after the server was told to collect its garbage" },
		bars:  func(int) map[string]bar { return map[string]bar{node: {most: 0.45}, centrifuge: {most: 0.25}} }},
	{scenario: "idle", figure: connects, format: bench.Grouped, ours: []string{gateway, whole},
		label: func(z sizes, _ int) string {
			return fmt.Sprintf("connects a second: handshake, CONNECT, joining %d rooms", z.idleRooms)
		},
		notes: (*results).cores},
	{scenario: "idle", figure: connectCost, format: func(v float64) string { return fmt.Sprintf("%.3f", v) }, ours: []string{gateway, whole},
		label: func(sizes, int) string { return "server CPU-seconds for 1,000 connects" }},
	{scenario: "slow", figure: p99Stopped, format: milliseconds, ours: nil,
		label: func(z sizes, size int) string {
			return fmt.Sprintf("p99 of %s clients at %s deliveries/s of %s bytes, while as many others in their rooms have stopped reading",
				bench.Grouped(float64(z.stalled)), bench.Grouped(float64(z.latencyPerSec)), bench.Grouped(float64(size)))
		},
		notes: func(r *results, k key) []string {
			notes := []string{"without them " + milliseconds(r.of(k, p99Alone)), "when they read " + milliseconds(r.of(k, p99Among)),
				"memory at its peak +" + bench.Grouped(r.of(k, memory)/(1<<20)) + " MiB", "the kernel's for sockets +" + bench.Grouped(r.of(k, kernelMemory)/(1<<20)) + " MiB"}
			if left := r.of(k, notCut); left > 0 {
				return append(notes, bench.Grouped(left)+" were never cut off")
			}
			return append(notes, fmt.Sprintf("all cut off after %.1f s", r.of(k, cutAfter)))
		}},
}

func saturatedLabel(window string) func(z sizes, size int) string {
	return func(_ sizes, size int) string {
		return fmt.Sprintf("deliveries for a server CPU-second, rooms of %s, saturated, %s", bench.Grouped(float64(size)), window)
	}
}

func saturatedBars(size int) map[string]bar {
	most := bar{least: 6}
	if size < 100 {
		most = bar{least: 3}
	}
	return map[string]bar{node: most, centrifuge: {least: 1.3}, batching: {least: 1.3}}
}

func latencyLabel(which string) func(z sizes, size int) string {
	return func(z sizes, size int) string {
		return fmt.Sprintf("%s from publisher to client at %s deliveries/s, rooms of %d", which, bench.Grouped(float64(z.latencyPerSec)), size)
	}
}

func latencyBars(int) map[string]bar { return map[string]bar{node: {most: 0.75}} }

func milliseconds(seconds float64) string {
	return fmt.Sprintf("%.2f ms", seconds*1000)
}

// of is another figure of the same run.
func (r *results) of(k key, figure string) float64 {
	k.figure = figure
	return r.median(k)
}

// cores tells what share of their cores server and load used.
func (r *results) cores(k key) []string {
	return []string{fmt.Sprintf("server core %.0f %%", 100*r.of(k, serverCore)), fmt.Sprintf("load core %.0f %%", 100*r.of(k, loadCore))}
}

// slowBar is how much slower readers may be for those that stopped.
const slowBar = 2

// markdown writes a table of the rows that were measured.
func (r *results) markdown(z sizes, facts []string) string {
	var b strings.Builder
	b.WriteString("| measure | server | median (of rounds: least – most) | ratio of Parley to it | bar | |\n|---|---|---|---|---|---|\n")
	for _, row := range rows {
		at := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == row.scenario })
		for _, variant := range scenarios[at].variants(z) {
			label := row.label(z, variant)
			for _, c := range contenders {
				k := key{row.scenario, variant, c.word, row.figure}
				if why, failed := r.failures[key{scenario: k.scenario, variant: variant, who: c.word}]; failed {
					fmt.Fprintf(&b, "| %s | %s | failed: %s | | | |\n", label, c.name, why)
					label = ""
				}
				if len(r.values[k]) == 0 {
					continue
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", label, c.name, r.cell(row, k), r.comparison(row, k))
				label = ""
			}
		}
	}
	b.WriteString("\n")
	for _, fact := range facts {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	return b.String()
}

// cell is a figure with its spread and what belongs to it.
func (r *results) cell(row row, k key) string {
	values := r.values[k]
	text := row.format(bench.Median(values))
	var notes []string
	if len(values) > 1 {
		notes = append(notes, row.format(slices.Min(values))+" – "+row.format(slices.Max(values)))
	}
	if row.notes != nil {
		notes = append(notes, row.notes(r, k)...)
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, "; ") + ")"
	}
	return text
}

// comparison is the last three columns: ratio, bar, whether it is met. Where two of ours are compared, each has its line in them.
func (r *results) comparison(row row, k key) string {
	if row.figure == p99Stopped {
		alone, among := r.median(k)/r.of(k, p99Alone), r.median(k)/r.of(k, p99Among)
		b := bar{most: slowBar}
		return fmt.Sprintf("%.2f × without them, %.2f × when they read | %s | %s, %s", alone, among, b, b.met(alone), b.met(among))
	}
	if slices.Contains(row.ours, k.who) {
		if row.absolute == nil || row.absolute(k.who) == 0 {
			return " |  | "
		}
		most := row.absolute(k.who)
		return fmt.Sprintf(" | ≤ %s | %s", bench.Grouped(most), bar{most: most}.met(r.median(k)))
	}
	var ratios, bars, met []string
	for _, who := range row.ours {
		ours := key{k.scenario, k.variant, who, k.figure}
		if len(r.values[ours]) == 0 {
			continue
		}
		ratio := r.median(ours) / r.median(k)
		name := ""
		if len(row.ours) > 1 {
			name = map[string]string{gateway: "gateway ", whole: "whole "}[who]
		}
		ratios = append(ratios, fmt.Sprintf("%s%.2f ×", name, ratio))
		if row.bars == nil {
			continue
		}
		if bar, held := row.bars(k.variant)[k.who]; held {
			bars = []string{bar.String()}
			met = append(met, bar.met(ratio))
		}
	}
	return strings.Join(ratios, ", ") + " | " + strings.Join(bars, "") + " | " + strings.Join(met, ", ")
}
