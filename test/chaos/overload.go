package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
)

const (
	overloadSenders = 500
	// Each sender has so many sends unanswered at most: when the peak is looked for, and when more is offered than can be done.
	peakWindow, offerWindow = 4, 64
	peakFor                 = 8 * time.Second
	quietlyFor              = 5 * time.Second
	overloadFor             = 20 * time.Second
	recoverFor              = 12 * time.Second
	// recoverMax is how soon after the overload the latency must be at most latencyFactor times what it was before.
	recoverMax    = 10 * time.Second
	latencyFactor = 2
	// The overload is so many times the peak; the load before and after it is that share of the peak.
	overloadFactor = 3.0
	quietShare     = 0.3
	goodputShare   = 0.8
	// offeredShare is how much of the overload the harness must bring about, or the run shows nothing.
	offeredShare = 0.8
	// overloadMemory is what a node may use, unless another number was given.
	overloadMemory = 512 << 20
)

// load is what the senders of an overload are to do, and what came of it. A new phase has a new one.
type load struct {
	since   time.Time
	window  int     // of each sender
	rate    float64 // sends a second of each; 0: as many as the window lets
	offered atomic.Int64
	acked   atomic.Int64
	refused atomic.Int64
	latency []bench.Histogram // of acknowledged sends, by the second in which they began
}

// overload offers three times the sends that a node can do at most.
func overload(ctx context.Context, r *run, _ scenarioOptions) error {
	var now atomic.Pointer[load]
	for i := range overloadSenders {
		p := r.person()
		r.device(p, offers(&now))
		if i%2 == 1 {
			if _, err := r.found(ctx, "direct", r.people[i-1:]); err != nil {
				return err
			}
		}
	}
	phase := func(window int, rate float64, most time.Duration) (*load, error) {
		l := &load{since: time.Now(), window: window, rate: rate / overloadSenders, latency: make([]bench.Histogram, int(most.Seconds())+60)}
		now.Store(l)
		return l, bench.Sleep(ctx, most)
	}
	now.Store(&load{})
	if err := r.apart(); err != nil {
		return err
	}
	defer r.connect(ctx)()
	r.parting.Store(false)
	if _, err := r.back(ctx, time.Time{}); err != nil {
		return err
	}
	if _, err := phase(peakWindow, 0, peakFor/4); err != nil { // It warms up.
		return err
	}
	saturated, err := phase(peakWindow, 0, peakFor)
	if err != nil {
		return err
	}
	peak := float64(saturated.acked.Load()) / peakFor.Seconds()
	before, err := phase(offerWindow, quietShare*peak, quietlyFor)
	if err != nil {
		return err
	}
	over, err := phase(offerWindow, overloadFactor*peak, overloadFor)
	if err != nil {
		return err
	}
	goodput, offered := float64(over.acked.Load())/overloadFor.Seconds(), float64(over.offered.Load())/overloadFor.Seconds()
	after, err := phase(offerWindow, quietShare*peak, recoverFor)
	if err != nil {
		return err
	}
	now.Store(&load{})
	normal := before.latency[int(quietlyFor.Seconds())-2].Quantile(0.5)
	recovered := time.Duration(-1)
	for second := range int(recoverFor.Seconds()) {
		if h := &after.latency[second]; h.Count() > 0 && h.Quantile(0.5) <= latencyFactor*normal {
			recovered = time.Duration(second) * time.Second
			break
		}
	}
	fmt.Printf("peak %.0f sends/s; offered %.0f (%.1f times), acknowledged %.0f (%.0f %%), refused %d; p50 before %s, back to twice that within %s\n",
		peak, offered, offered/peak, goodput, 100*goodput/peak, over.refused.Load(), normal, recovered+time.Second)
	switch {
	case offered < offeredShare*overloadFactor*peak:
		r.fail(fmt.Errorf("the harness offered %.1f times the peak, and wanted %.1f", offered/peak, overloadFactor))
	case goodput < goodputShare*peak:
		r.fail(fmt.Errorf("of a peak of %.0f sends/s %.0f are left under overload", peak, goodput))
	case recovered < 0 || recovered > recoverMax:
		r.fail(fmt.Errorf("%s after the overload the latency has not fallen to twice of what it was, %s", recoverMax, normal))
	}
	return r.end(ctx)
}

// apart keeps the only node and the harness to cores of their own, so that an overload of the one is none of the other.
func (r *run) apart() error {
	cores, err := bench.SplitCores()
	if err != nil || len(cores.Server) == 0 {
		return err
	}
	for _, node := range r.world.Nodes() {
		if err := bench.PinRunning(node.PID(), cores.Server); err != nil {
			return err
		}
	}
	return bench.PinProcess(cores.Load)
}

// offers are the habits of a sender of an overload: it sends as its load says, and never again what was not acknowledged.
func offers(now *atomic.Pointer[load]) habits {
	h := patient()
	h.pause = func(random *rand.Rand) time.Duration {
		pause := 10 * time.Millisecond
		if l := now.Load(); l.rate > 0 {
			pause = max(pause, time.Duration(float64(time.Second)/l.rate)/4) // To look more often would only cost time that answers wait for.
		}
		return pause/2 + time.Duration(random.Int64N(int64(pause)))
	}
	h.window = offerWindow
	var doing *load
	sent := 0 // of it
	h.act = func(c *connection, _ context.Context) {
		l := now.Load()
		if l != doing {
			doing, sent = l, 0
		}
		c.mu.Lock()
		due := l.window - len(c.waiting)
		c.mu.Unlock()
		if l.rate > 0 {
			due = min(due, int(l.rate*time.Since(l.since).Seconds())-sent)
		}
		for range due {
			sent++
			c.offer(l)
		}
	}
	return h
}

// offer sends something and counts what comes of it.
func (c *connection) offer(l *load) {
	began := time.Now()
	l.offered.Add(1)
	d := c.person.draft(c.person.conversations[0])
	body := d.body()
	body["conversation_id"] = d.conversation
	c.emit(d.line(), "send-message", body, acknowledged, func(out *history.Line) {
		switch out.Phase {
		case history.OK:
			l.acked.Add(1)
			l.latency[int(began.Sub(l.since).Seconds())].Add(time.Since(began))
		case history.Fail:
			l.refused.Add(1)
		}
	})
}
