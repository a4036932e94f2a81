package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"parley/engineio"
)

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
		Help: "Clients without a cursor that came back: exact, near (a few seconds may come again), or lost (too long ago)."}, []string{"how"})
	r.MustRegister(g.metrics.events, g.metrics.failures, g.metrics.recovered, g.metrics.panics)
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_gateway_sessions", Help: "Sockets, signed in or not."}, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(len(g.sessions))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_gateway_left_sessions", Help: "Sessions whose connection broke, kept for recovery."}, func() float64 {
			g.recovery.mu.Lock()
			defer g.recovery.mu.Unlock()
			return float64(len(g.recovery.left))
		}),
		engineStats(g.io.Stats))
}

// engineStats shows the counts of the transports, all of one moment.
type engineStats func() engineio.Stats

type engineMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*engineio.Stats) int64
}

var engineMetrics = []engineMetric{
	engineGauge("websockets", "Open connections over WebSocket.", func(s *engineio.Stats) int64 { return s.WebSockets }),
	engineGauge("pollings", "Open connections over long polling.", func(s *engineio.Stats) int64 { return s.Pollings }),
	engineGauge("queue_bytes", "What waits to be written to all connections.", func(s *engineio.Stats) int64 { return s.QueueBytes }),
	engineCounter("opened", "Connections opened.", func(s *engineio.Stats) int64 { return s.Opened }),
	engineCounter("upgraded", "Connections that went from long polling to WebSocket.", func(s *engineio.Stats) int64 { return s.Upgraded }),
	engineCounter("refused", "Connections refused for their number, or while stopping.", func(s *engineio.Stats) int64 { return s.Refused }),
	engineCounter("unpolled", "Connections closed because no poll followed the handshake.", func(s *engineio.Stats) int64 { return s.Unpolled }),
	engineCounter("packets_in", "Packets received.", func(s *engineio.Stats) int64 { return s.PacketsIn }),
	engineCounter("bytes_in", "Bytes of the packets received.", func(s *engineio.Stats) int64 { return s.BytesIn }),
	engineCounter("packets_out", "Packets written.", func(s *engineio.Stats) int64 { return s.PacketsOut }),
	engineCounter("bytes_out", "Bytes written.", func(s *engineio.Stats) int64 { return s.BytesOut }),
	engineCounter("dropped", "Packets dropped that may be.", func(s *engineio.Stats) int64 { return s.Dropped }),
	engineCounter("slow_closes", "Connections closed because they did not take what was sent.", func(s *engineio.Stats) int64 { return s.SlowCloses }),
	engineCounter("ping_timeouts", "Connections closed because no pong came.", func(s *engineio.Stats) int64 { return s.PingTimeouts }),
	engineCounter("parse_errors", "Connections closed for a breach of the protocol.", func(s *engineio.Stats) int64 { return s.ParseErrors }),
	engineCounter("panics", "Handlers that panicked.", func(s *engineio.Stats) int64 { return s.Panics }),
}

func engineGauge(name, help string, value func(*engineio.Stats) int64) engineMetric {
	return engineMetric{prometheus.NewDesc("parley_engineio_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func engineCounter(name, help string, value func(*engineio.Stats) int64) engineMetric {
	return engineMetric{prometheus.NewDesc("parley_engineio_"+name+"_total", help, nil, nil), prometheus.CounterValue, value}
}

// Describe implements prometheus.Collector.
func (engineStats) Describe(out chan<- *prometheus.Desc) {
	for _, m := range engineMetrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (stats engineStats) Collect(out chan<- prometheus.Metric) {
	s := stats()
	for _, m := range engineMetrics {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(&s)))
	}
}
