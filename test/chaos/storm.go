package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

const (
	stormGroup = 20
	// stormStall is how long a client waits for its connection: as long as the official one does.
	stormStall = 20 * time.Second
	// Of the clients of a storm most are back, with all that they missed, after the first time, and all after the second.
	stormMost, stormAll = 15 * time.Second, 60 * time.Second
	stormShare          = 0.95
	stormReadsMax       = 3 // of the database, for each client
	// sparedFiles are the descriptors that a process needs besides its connections.
	sparedFiles = 1000
)

// storm has very many clients lose their connections, miss a message each, and come back at once.
func storm(ctx context.Context, r *run, o scenarioOptions) error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	n := min(o.clients, int(files.Max)-sparedFiles) / stormGroup * stormGroup
	if n < o.clients {
		fmt.Printf("%d clients, for a process may open no more than %d files\n", n, files.Max)
	}
	for range n {
		r.device(r.person(), patient())
	}
	for members := range slices.Chunk(r.people, stormGroup) {
		if _, err := r.found(ctx, "group", members); err != nil {
			return err
		}
	}
	defer r.connect(ctx)()
	r.parting.Store(false)
	if _, err := r.back(ctx, time.Time{}); err != nil {
		return err
	}

	r.gate.close()
	for _, d := range r.devices {
		d.mu.Lock()
		if d.is != nil {
			_ = d.is.conn.TCP.SetLinger(0) // It is a reset, or a close.
			d.is.conn.Close()
		}
		d.mu.Unlock()
	}
	for _, c := range r.all {
		draft := c.owner.draft(c.id)
		if err := r.sure(ctx, r.world.Nodes()[0], func(node *world.Node) history.Line { return r.post(ctx, node, draft) }); err != nil {
			return err
		}
	}
	before, err := r.metric(ctx, "parley_sqldb_reads_total")
	if err != nil {
		return err
	}
	began := time.Now()
	r.gate.open()
	times, err := r.back(ctx, began)
	if err != nil {
		return err
	}
	after, err := r.metric(ctx, "parley_sqldb_reads_total")
	if err != nil {
		return err
	}
	slices.Sort(times)
	most, all, reads := times[int(stormShare*float64(n))-1], times[n-1], (after-before)/float64(n)
	fmt.Printf("%d clients came back: half in %.1f s, 95 %% in %.1f s, all in %.1f s, with %.2f reads of the database each\n", n,
		times[n/2].Seconds(), most.Seconds(), all.Seconds(), reads)
	if most > stormMost || all > stormAll || reads > stormReadsMax {
		r.fail(fmt.Errorf("95 %% are to be back in %s, all in %s, with %d reads at most", stormMost, stormAll, stormReadsMax))
	}
	return r.end(ctx)
}

// patient are the habits of a client that only listens, and waits long for its connection.
func patient() habits {
	h := silent(0)
	h.stall = stormStall
	return h
}

// back waits until all devices are connected, and have what they missed if since is a time, and returns when each had, counted from since.
func (r *run) back(ctx context.Context, since time.Time) (times []time.Duration, err error) {
	for deadline := time.Now().Add(2 * stormAll); ; {
		times = times[:0]
		for _, d := range r.devices {
			d.mu.Lock()
			if d.is != nil && d.is.live && (since.IsZero() || d.is.caughtUp.After(since)) {
				times = append(times, d.is.caughtUp.Sub(since))
			}
			d.mu.Unlock()
		}
		if len(times) == len(r.devices) {
			return times, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d clients are back after %s", len(times), len(r.devices), 2*stormAll)
		}
		if err := bench.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// metric adds up a metric without labels over all nodes.
func (r *run) metric(ctx context.Context, name string) (sum float64, err error) {
	for _, node := range r.world.Nodes() {
		status, text, err := r.request(ctx, node, r.people[0].name, "GET", "/metrics", nil)
		if err != nil {
			return 0, err
		}
		if status != 200 {
			return 0, fmt.Errorf("/metrics of %s: status %d", node.Name, status)
		}
		found := false
		for line := range strings.Lines(string(text)) {
			var value float64
			if rest, is := strings.CutPrefix(line, name+" "); is {
				if _, err := fmt.Sscan(rest, &value); err != nil {
					return 0, fmt.Errorf("%s: %w", name, err)
				}
				sum, found = sum+value, true
			}
		}
		if !found {
			return 0, errors.New("there is no metric " + name)
		}
	}
	return sum, nil
}
