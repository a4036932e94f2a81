package world

import (
	"context"
	"math/rand/v2"
	"time"

	"parley/test/bench"
)

const (
	// A killed node stays away for at most this long.
	awayMax = 2 * time.Second
	// A storm of restarts has at most this many kills, each at most stormStepMax after the start before it: a node takes a few tenths of
	// a second to start.
	stormKillsMax = 5
	stormStepMax  = 300 * time.Millisecond
)

// freezes are shorter than any time-out, longer than those of the database, and longer than a client's patience.
var freezes = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second}

// processFaults harm a node's process.
func (w *World) processFaults() []Fault {
	nodes := w.nodeNames()
	faults := []Fault{
		{Name: "kill", About: "A node is ended by kill -9, and started again within 2 s.", targets: nodes, inject: w.kill},
		{Name: "storm", About: "A node is killed several times in a row, mostly while it starts.", targets: nodes, inject: w.storm},
		{Name: "restart", About: "A node ends by SIGTERM, and is started again.", targets: nodes, inject: w.restart},
	}
	return append(faults, Fault{Name: "freeze", About: "A node is frozen by SIGSTOP, and goes on by SIGCONT.", Last: freezes, targets: nodes,
		inject: w.freeze})
}

func (w *World) kill(_ context.Context, r *rand.Rand, target string) (func(context.Context) error, error) {
	n, away := w.node(target), between(r, 0, awayMax)
	n.Kill()
	return func(ctx context.Context) error { return bench.Sleep(ctx, away) }, nil
}

func (w *World) storm(ctx context.Context, r *rand.Rand, target string) (func(context.Context) error, error) {
	n := w.node(target)
	for range 2 + r.IntN(stormKillsMax-1) {
		n.Kill()
		if err := n.Launch(); err != nil {
			return nil, err
		}
		if err := bench.Sleep(ctx, between(r, 0, stormStepMax)); err != nil {
			return nil, err
		}
	}
	n.Kill()
	return nothing, nil
}

func (w *World) restart(_ context.Context, _ *rand.Rand, target string) (func(context.Context) error, error) {
	n := w.node(target)
	n.Stop()
	return nothing, nil
}

func (w *World) freeze(_ context.Context, _ *rand.Rand, target string) (func(context.Context) error, error) {
	n := w.node(target)
	if err := n.Pause(); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		if !n.Alive() { // See World.Exits.
			return nil
		}
		return n.Continue()
	}, nil
}

// between is a time from least to most.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}
