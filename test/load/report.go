package main

import (
	"fmt"
	"strings"
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
