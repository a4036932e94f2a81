package sqldb

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// ErrQueueFull says that a Batcher has as much waiting as it may.
var ErrQueueFull = errors.New("sqldb: the queue of what is to be committed is full")

// ErrStopped says that a Batcher takes nothing any more.
var ErrStopped = errors.New("sqldb: stopped")

// Batcher is the group commit: while one batch is being committed the next ones gather, and are
// committed together when it is done. An idle Batcher commits a lone item at once.
//
// Items of one lane are handed over in the order in which they were put, never two batches of a lane at a time.
type Batcher[T any] struct {
	writers []writer[T]
	max     int
	commit  func(ctx context.Context, items []T)
}

type writer[T any] struct {
	mu      sync.Mutex
	waiting []T
	bound   int
	stopped bool

	wake chan struct{}
}

// NewBatcher makes a Batcher with a number of writers (on SQLite one is enough, since one writes at
// a time), that commits at most sizeMax items together and lets at most queueMax wait. commit gives
// every item its answer itself; its items are its own.
func NewBatcher[T any](writers, sizeMax, queueMax int, commit func(ctx context.Context, items []T)) *Batcher[T] {
	b := &Batcher[T]{writers: make([]writer[T], writers), max: sizeMax, commit: commit}
	for i := range b.writers {
		b.writers[i].wake = make(chan struct{}, 1)
		b.writers[i].bound = max(1, queueMax/writers)
	}
	return b
}

// Put has item committed in its turn. It does not wait.
// Errors: ErrQueueFull, ErrStopped.
func (b *Batcher[T]) Put(lane int, item T) error {
	w := &b.writers[lane%len(b.writers)]
	w.mu.Lock()
	if w.stopped || len(w.waiting) >= w.bound {
		stopped := w.stopped
		w.mu.Unlock()
		if stopped {
			return ErrStopped
		}
		return ErrQueueFull
	}
	w.waiting = append(w.waiting, item)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// Waiting is how many items wait.
func (b *Batcher[T]) Waiting() int {
	n := 0
	for i := range b.writers {
		w := &b.writers[i]
		w.mu.Lock()
		n += len(w.waiting)
		w.mu.Unlock()
	}
	return n
}

// Run commits until ctx ends; what had been put by then is still committed before it returns.
func (b *Batcher[T]) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i := range b.writers {
		wg.Go(func() { b.run(ctx, &b.writers[i]) })
	}
	wg.Wait()
	return ctx.Err()
}

func (b *Batcher[T]) run(ctx context.Context, w *writer[T]) {
	work := context.WithoutCancel(ctx)
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			w.mu.Lock()
			w.stopped = true
			w.mu.Unlock()
		}
		for {
			// Whoever is about to put something gets to run first. On a busy node this is what makes batches:
			// the scheduler would run this goroutine right after the first Put. On an idle one it costs nothing.
			runtime.Gosched()
			batch := b.take(w)
			if len(batch) == 0 {
				break
			}
			b.commit(work, batch)
		}
		if ctx.Err() != nil {
			w.mu.Lock()
			over := w.stopped && len(w.waiting) == 0
			w.mu.Unlock()
			if over {
				return
			}
		}
	}
}

func (b *Batcher[T]) take(w *writer[T]) []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting), b.max)
	batch := w.waiting[:n:n]
	w.waiting = w.waiting[n:]
	if len(w.waiting) == 0 {
		w.waiting = nil // the array goes with its batch
	}
	return batch
}
