package gateway

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	events    *prometheus.CounterVec
	failures  *prometheus.CounterVec
	recovered *prometheus.CounterVec
	panics    prometheus.Counter
}

// observe registers what the gateway and its protocols count.
func (g *Gateway) observe(r prometheus.Registerer) {
	g.metrics.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_events_total", Help: "Events of clients, by name."}, []string{"event"})
	g.metrics.failures = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_failures_total", Help: "Events that failed, by code."}, []string{"code"})
	g.metrics.panics = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_panics_total", Help: "Commits and sessions that panicked while they were seen to."})
	g.metrics.recovered = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_recoveries_total",
		Help: "Clients without a cursor that came back: exactly where they were, by the time of what they were told last, or lost."}, []string{"how"})
	r.MustRegister(g.metrics.events, g.metrics.failures, g.metrics.recovered, g.metrics.panics)
	gauge := func(name, help string, f func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) }))
	}
	counter := func(name, help string, f func() int64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f()) }))
	}
	gauge("parley_gateway_sessions", "Sockets, signed in or not.", func() int64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return int64(len(g.sessions))
	})
	gauge("parley_engineio_websockets", "Open connections over WebSocket.", func() int64 { return g.io.Stats().WebSockets })
	gauge("parley_engineio_pollings", "Open connections over long polling.", func() int64 { return g.io.Stats().Pollings })
	gauge("parley_engineio_queue_bytes", "What waits to be written to all connections.", func() int64 { return g.io.Stats().QueueBytes })
	counter("parley_engineio_packets_in_total", "Packets received.", func() int64 { return g.io.Stats().PacketsIn })
	counter("parley_engineio_packets_out_total", "Packets written.", func() int64 { return g.io.Stats().PacketsOut })
	counter("parley_engineio_dropped_total", "Droppable packets dropped.", func() int64 { return g.io.Stats().Dropped })
	counter("parley_engineio_slow_closes_total", "Connections closed because they did not take what was sent.", func() int64 { return g.io.Stats().SlowCloses })
	counter("parley_engineio_parse_errors_total", "Connections closed for a breach of the protocol.", func() int64 { return g.io.Stats().ParseErrors })
	counter("parley_engineio_panics_total", "Handlers that panicked.", func() int64 { return g.io.Stats().Panics })
}
