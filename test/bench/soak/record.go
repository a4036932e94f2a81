package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/test/bench"
)

// sample is what was read at one moment.
type sample struct {
	at                      time.Duration // since the beginning
	sessions                float64
	goroutines, descriptors float64
	resident, heap          float64 // bytes
	acks, deliveries        int64
	cpuSeconds              float64
}

// record is what was read in a run.
type record struct {
	soak       *soak
	begun      time.Time
	start, end sample // before the first came, and after the last left
	samples    []sample
}

func (r *record) sample() (sample, error) {
	m, err := r.soak.parley.Metrics()
	if err != nil {
		return sample{}, err
	}
	resident, err := r.soak.parley.ResidentBytes()
	if err != nil {
		return sample{}, err
	}
	descriptors, err := r.soak.parley.Descriptors()
	if err != nil {
		return sample{}, err
	}
	cpu, err := r.soak.parley.CPUSeconds()
	return sample{at: time.Since(r.begun), sessions: m["parley_gateway_sessions"], goroutines: m["go_goroutines"], descriptors: float64(descriptors),
		resident: float64(resident), heap: m["go_memstats_heap_inuse_bytes"], acks: r.soak.acks.Load(), deliveries: r.soak.deliveries.Load(), cpuSeconds: cpu}, err
}

// take adds a sample.
func (r *record) take() error {
	s, err := r.sample()
	r.samples = append(r.samples, s)
	return err
}

// bound is how much something may grow: by a share of what it was, and by an amount.
type bound struct {
	name   string
	of     func(s sample) float64
	share  float64
	amount float64
	unit   float64 // in which it is told
	lowest bool    // what counts of several samples is the lowest, for it goes up and down with the collection of garbage
}

const mebi = 1 << 20

// bounds are those between the middle of a run and its end; left are those between its start and when all have left.
var (
	bounds = []bound{
		{name: "goroutines", of: func(s sample) float64 { return s.goroutines }, share: 0.05, amount: 20, unit: 1},
		{name: "descriptors", of: func(s sample) float64 { return s.descriptors }, share: 0.05, amount: 20, unit: 1},
		{name: "MiB in Go's heap", of: func(s sample) float64 { return s.heap }, share: 0.1, amount: 8 * mebi, unit: mebi, lowest: true},
		{name: "MiB resident", of: func(s sample) float64 { return s.resident }, share: 0.1, amount: 16 * mebi, unit: mebi},
	}
	left = []bound{
		{name: "sessions", of: func(s sample) float64 { return s.sessions }, unit: 1},
		{name: "goroutines", of: func(s sample) float64 { return s.goroutines }, amount: 10, unit: 1},
		{name: "descriptors", of: func(s sample) float64 { return s.descriptors }, amount: 10, unit: 1},
		{name: "MiB in Go's heap", of: func(s sample) float64 { return s.heap }, amount: 32 * mebi, unit: mebi},
	}
)

// most is what a value may have become.
func (b bound) most(was float64) float64 { return was*(1+b.share) + b.amount }

// level is what counts of some samples.
func (b bound) level(samples []sample) float64 {
	sum, least := 0.0, b.of(samples[0])
	for _, s := range samples {
		sum += b.of(s)
		least = min(least, b.of(s))
	}
	if b.lowest {
		return least
	}
	return sum / float64(len(samples))
}

// parts are the samples about the middle of the run, and those at its end.
func (r *record) parts() (middle, end []sample) {
	n := len(r.samples)
	return r.samples[n*2/5 : n*3/5+1], r.samples[n*4/5:]
}

// settled takes the sample at the end and reports whether the server is as it was at the start.
func (r *record) settled() (bool, error) {
	s, err := r.sample()
	r.end = s
	for _, b := range left {
		if b.of(s) > b.most(b.of(r.start)) {
			return false, err
		}
	}
	return true, err
}

// samplesMin is how many samples there must be for a judgement.
const samplesMin = 5

// growth returns what has grown beyond its bound.
func (r *record) growth() error {
	if len(r.samples) < samplesMin {
		return fmt.Errorf("soak: %d samples say nothing of growth", len(r.samples))
	}
	var grown error
	middle, end := r.parts()
	for _, b := range bounds {
		if was, is := b.level(middle), b.level(end); is > b.most(was) {
			grown = errors.Join(grown, fmt.Errorf("soak: %s grew from %.0f in the middle to %.0f at the end", b.name, was/b.unit, is/b.unit))
		}
	}
	for _, b := range left {
		if was, is := b.of(r.start), b.of(r.end); is > b.most(was) {
			grown = errors.Join(grown, fmt.Errorf("soak: %s were %.0f at the start and are %.0f after all have left", b.name, was/b.unit, is/b.unit))
		}
	}
	return grown
}

// rowsMax bounds the samples in the table; the figures of those between are not told.
const rowsMax = 24

func (r *record) markdown(facts []string) string {
	var b strings.Builder
	b.WriteString("| after | sessions | goroutines | descriptors | MiB resident | MiB in Go's heap | sends/s | deliveries/s | server core |\n|---|---|---|---|---|---|---|---|---|\n")
	line := func(when string, s sample, before *sample) {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %.0f | %.0f |", when, s.sessions, s.goroutines, s.descriptors, s.resident/mebi, s.heap/mebi)
		if before == nil {
			b.WriteString("  |  |  |\n")
			return
		}
		seconds := (s.at - before.at).Seconds()
		fmt.Fprintf(&b, " %s | %s | %.0f %% |\n", bench.Grouped(float64(s.acks-before.acks)/seconds), bench.Grouped(float64(s.deliveries-before.deliveries)/seconds),
			100*(s.cpuSeconds-before.cpuSeconds)/seconds)
	}
	line("nobody has come yet", r.start, nil)
	step := (len(r.samples) + rowsMax - 1) / rowsMax
	before := r.start
	for i, s := range r.samples {
		if (i+1)%step == 0 {
			line(s.at.Round(time.Second).String(), s, &before)
			before = s
		}
	}
	if r.end.at > 0 {
		line(fmt.Sprintf("all have left (%s)", r.end.at.Round(time.Second)), r.end, nil)
	}
	b.WriteString("\n")
	if len(r.samples) >= samplesMin {
		b.WriteString("| | in the middle | at the end | bound | |\n|---|---|---|---|---|\n")
		middle, end := r.parts()
		for _, bound := range bounds {
			verdict(&b, bound, bound.level(middle), bound.level(end))
		}
		b.WriteString("\n| | at the start | after all have left | bound | |\n|---|---|---|---|---|\n")
		for _, bound := range left {
			verdict(&b, bound, bound.of(r.start), bound.of(r.end))
		}
		b.WriteString("\n")
	}
	for _, fact := range facts {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	return b.String()
}

func verdict(b *strings.Builder, bound bound, was, is float64) {
	met := "met"
	if is > bound.most(was) {
		met = "**not met**"
	}
	fmt.Fprintf(b, "| %s | %.0f | %.0f | ≤ %.0f | %s |\n", bound.name, was/bound.unit, is/bound.unit, bound.most(was)/bound.unit, met)
}
