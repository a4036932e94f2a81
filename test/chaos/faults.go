package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// harm injects the faults that were chosen, one after the other in as many lanes as may be on at once, until it is time, and heals them all.
func (r *run) harm(ctx context.Context, until time.Time) error {
	faults, err := r.chosen()
	if err != nil {
		return err
	}
	if len(faults) == 0 {
		return bench.Sleep(ctx, time.Until(until))
	}
	bag := &bag{faults: faults, random: r.random(2)}
	bag.fill()
	slices.SortStableFunc(bag.left, func(a, b world.Fault) int { return r.rank(a) - r.rank(b) })
	errs := make([]error, r.lanes)
	var lanes sync.WaitGroup
	for i := range r.lanes {
		random := r.random(10 + i)
		lanes.Go(func() {
			for errs[i] == nil {
				if errs[i] = bench.Sleep(ctx, time.Duration(500+random.IntN(1500))*time.Millisecond); errs[i] != nil || !time.Now().Before(until) {
					return
				}
				errs[i] = r.inject(ctx, bag.draw(), random)
			}
		})
	}
	lanes.Wait()
	return errors.Join(errs...)
}

// rank is 0 for the faults that come before all others, and 1 for those.
func (r *run) rank(f world.Fault) int {
	if slices.Contains(r.first, f.Name) {
		return 0
	}
	return 1
}

// chosen are the faults that were asked for. A fault that was named and cannot be had is an error.
func (r *run) chosen() (faults []world.Fault, err error) {
	all := r.world.Faults()
	if r.faults == nil {
		return all, nil
	}
	for _, name := range r.faults {
		i := slices.IndexFunc(all, func(f world.Fault) bool { return f.Name == name })
		if i < 0 {
			err = errors.Join(err, fmt.Errorf("the fault %q cannot be had: %s", name, r.why(name)))
			continue
		}
		faults = append(faults, all[i])
	}
	return faults, err
}

func (r *run) why(name string) string {
	for _, m := range r.world.Missing() {
		if m.Name == name {
			return m.Why
		}
	}
	return fmt.Sprintf("a world of the kind %s has none of this name", r.options.world.Kind)
}

// bag has each fault once before it has any again.
type bag struct {
	faults []world.Fault
	random *rand.Rand

	mu   sync.Mutex
	left []world.Fault
}

func (b *bag) draw() world.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.left) == 0 {
		b.fill()
	}
	f := b.left[0]
	b.left = b.left[1:]
	return f
}

// fill puts all faults in, in any order.
func (b *bag) fill() {
	b.left = slices.Clone(b.faults)
	b.random.Shuffle(len(b.left), func(i, j int) { b.left[i], b.left[j] = b.left[j], b.left[i] })
}

// last chooses how long a fault is left on: not longer than there is time for, if it can be had.
func (r *run) last(f world.Fault, random *rand.Rand) time.Duration {
	var times []time.Duration
	for i, d := range f.Last {
		if i == 0 || d <= r.lastMax {
			times = append(times, d)
		}
	}
	if len(times) == 0 {
		return 0 // It is a moment.
	}
	return times[random.IntN(len(times))]
}

// inject does one harm, for a time, and undoes it.
func (r *run) inject(ctx context.Context, f world.Fault, random *rand.Rand) error {
	l := history.Line{Fault: f.Name}
	note := func(kind string, ackMillis int64) {
		l.Kind, l.AckMillis = kind, ackMillis
		r.mark(l)
	}
	r.mu.Lock()
	r.harmed = true
	r.mu.Unlock()
	note(history.Harm, 0)
	heal, err := f.Inject(ctx, random)
	if err != nil {
		note(history.Healed, ackMax.Milliseconds())
		if errors.Is(err, world.ErrBusy) {
			return nil
		}
		return err
	}
	note(history.Harmed, f.AckMin.Milliseconds())
	last := r.last(f, random)
	r.mu.Lock()
	r.longest = max(r.longest, last)
	r.mu.Unlock()
	err = bench.Sleep(ctx, last)
	note(history.Heal, 0)
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), healMax)
	defer cancel()
	if healed := heal(healing); healed != nil {
		return errors.Join(err, healed)
	}
	note(history.Healed, ackMax.Milliseconds())
	return err
}
