package workflow

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Step is one named thing to do with a T.
type Step[T any] struct {
	Name string
	Do   func(ctx context.Context, v T) error
	// OnError is told of a failure of Do; nil in return makes up for it and the flow goes on.
	// A step without it fails the flow.
	OnError func(ctx context.Context, v T, err error) error
}

// Flow is a named and versioned sequence of steps over a T.
type Flow[T any] struct {
	Name, Version string
	steps         []Step[T]
	seconds       []prometheus.Observer
	failures      []prometheus.Counter
}

// Define makes a Flow. Its steps are counted in m.
func Define[T any](m *Metrics, name, version string, steps ...Step[T]) *Flow[T] {
	f := &Flow[T]{Name: name, Version: version, steps: steps}
	for _, s := range steps {
		f.seconds = append(f.seconds, m.seconds.WithLabelValues(name, version, s.Name))
		f.failures = append(f.failures, m.failures.WithLabelValues(name, version, s.Name))
	}
	return f
}

// Run does the steps from the one named first to the one named last, both included: parts of a flow
// run at different times, such as inside a transaction and after it.
func (f *Flow[T]) Run(ctx context.Context, first, last string, v T) error {
	running := false
	for i, s := range f.steps {
		running = running || s.Name == first
		if !running {
			continue
		}
		began := time.Now()
		err := s.Do(ctx, v)
		f.seconds[i].Observe(time.Since(began).Seconds())
		if err != nil {
			f.failures[i].Inc()
			if s.OnError != nil {
				err = s.OnError(ctx, v, err)
			}
			if err != nil {
				return err
			}
		}
		if s.Name == last {
			return nil
		}
	}
	panic(fmt.Sprintf("workflow: %s has no steps from %s to %s", f.Name, first, last))
}

// Steps are the names in their order.
func (f *Flow[T]) Steps() []string {
	names := make([]string, len(f.steps))
	for i, s := range f.steps {
		names[i] = s.Name
	}
	return names
}

// Metrics is where the steps of all flows are counted.
type Metrics struct {
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
}

// NewMetrics registers them with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	labels := []string{"workflow", "version", "step"}
	m := &Metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_workflow_step_seconds", Help: "How long a step took; a step inside a transaction is timed once for a batch.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12),
		}, labels),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_workflow_step_failures_total", Help: "How often a step failed, made up for or not.",
		}, labels),
	}
	r.MustRegister(m.seconds, m.failures)
	return m
}
