package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrBusy says that everything that a fault could harm is being harmed already, by itself or another one.
var ErrBusy = errors.New("world: what it would harm is being harmed")

// A Fault is one kind of harm. Any number may be on at once, each to a target of its own.
type Fault struct {
	Name string
	// About says in a sentence what it does.
	About string
	// AckMin is the least time that an acknowledgement of a send takes that began while the fault was on, because it needs a sync that
	// takes so long. 0: there is none.
	AckMin time.Duration
	// Last are the times that it is worth to leave it on for. Empty: it is a moment, to be healed at once.
	Last []time.Duration

	w       *World
	targets []string
	inject  injection
}

// An injection does the harm to a target, and returns what undoes it, after which [World.recover] sees to the nodes.
type injection func(ctx context.Context, r *rand.Rand, target string) (undo func(context.Context) error, err error)

// nothing undoes what is over already.
func nothing(context.Context) error { return nil }

// Missing is a fault that this machine or process cannot inject into the world's kind, and why.
type Missing struct{ Name, Why string }

// Faults are those that this world can have, in a fixed order.
func (w *World) Faults() []Fault { return w.faults }

// Missing are the faults that are left out.
func (w *World) Missing() []Missing { return w.missing }

// Inject does the harm, to a target and in a way that r chooses, and returns what heals it. Between the two the fault is on, unless it
// is a moment, such as a kill: then what heals waits until all is well again. heal must be called once, whatever happened; it returns
// when the nodes are ready. Errors: [ErrBusy].
func (f Fault) Inject(ctx context.Context, r *rand.Rand) (heal func(context.Context) error, err error) {
	target, err := f.w.harm(r, f.targets)
	if err != nil {
		return nil, err
	}
	f.w.log.Info("harm", "fault", f.Name, "target", target)
	undo, err := f.inject(ctx, r, target)
	if err != nil {
		f.w.release(target)
		return nil, fmt.Errorf("world: %s at %s: %w", f.Name, target, err)
	}
	return func(ctx context.Context) error {
		defer f.w.release(target)
		began := time.Now()
		if err := errors.Join(undo(ctx), f.w.recover(ctx, target)); err != nil {
			return fmt.Errorf("world: heal %s at %s: %w", f.Name, target, err)
		}
		f.w.log.Info("healed", "fault", f.Name, "target", target, "took", time.Since(began))
		return nil
	}, nil
}

// harm takes one of targets that is not being harmed.
func (w *World) harm(r *rand.Rand, targets []string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range r.Perm(len(targets)) {
		if !w.harmed[targets[i]] {
			w.harmed[targets[i]] = true
			return targets[i], nil
		}
	}
	return "", ErrBusy
}

func (w *World) release(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.harmed, target)
}

// choose lists the faults of the world's kind, and leaves out what this machine cannot do.
func (w *World) choose() {
	add := func(why error, faults []Fault) {
		for _, f := range faults {
			f.w = w
			if why != nil {
				w.missing = append(w.missing, Missing{f.Name, why.Error()})
				continue
			}
			w.faults = append(w.faults, f)
		}
	}
	add(nil, w.processFaults())
	if w.postgres != nil {
		add(nil, w.postgres.faults())
	}
	if w.nats != nil {
		add(nil, w.nats.faults())
	}
	add(tracing(), w.traceFaults())
	if w.options.DiskMaxBytes > 0 {
		add(nil, w.diskFaults())
	}
	add(filtering(), w.networkFaults())
}

// free reports whether none of targets is being harmed, but for the one that is about to be healed.
func (w *World) free(healed string, targets ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range targets {
		if w.harmed[t] && t != healed {
			return false
		}
	}
	return true
}

// node is the one of that name.
func (w *World) node(name string) *Node {
	for _, n := range w.nodes {
		if n.Name == name {
			return n
		}
	}
	panic("world: there is no " + name)
}

func (w *World) nodeNames() []string {
	var names []string
	for _, n := range w.nodes {
		names = append(names, n.Name)
	}
	return names
}
