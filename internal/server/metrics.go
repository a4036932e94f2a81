package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/sqldb"
)

// observe shows the counters of the parts that know nothing of metrics.
func observe(r prometheus.Registerer, db *sqldb.DB, b *bus.Bus) {
	counter := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter("parley_sqldb_commits_total", "Transactions committed.", func() float64 { return float64(db.Stats().Commits) })
	counter("parley_sqldb_rollbacks_total", "Transactions rolled back.", func() float64 { return float64(db.Stats().Rollbacks) })
	counter("parley_sqldb_reads_total", "Reading transactions.", func() float64 { return float64(db.Stats().Reads) })
	counter("parley_sqldb_statements_total", "Statements run, but for those that begin and end transactions.", func() float64 { return float64(db.Stats().Statements) })
	counter("parley_bus_told_total", "Hints handed to NATS.", func() float64 { return float64(b.Stats().Told) })
	counter("parley_bus_lost_total", "Hints that were not handed to NATS.", func() float64 { return float64(b.Stats().Lost) })
	counter("parley_bus_dropped_total", "Hints that arrived and were dropped by a full queue.", func() float64 { return float64(b.Stats().Dropped) })
	gauge("parley_sqldb_oldest_snapshot_seconds", "Age of the oldest transaction that keeps PostgreSQL from clearing old rows; minutes of it slow every send.",
		func() float64 { return db.OldestSnapshot().Seconds() })
	gauge("parley_bus_routes", "Other nodes that this one is connected to.", func() float64 { return float64(b.Routes()) })
	gauge("parley_bus_healthy", "1 while the bus is connected.", func() float64 {
		if b.Healthy() {
			return 1
		}
		return 0
	})
}
