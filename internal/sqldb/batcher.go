package sqldb

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// ErrQueueFull says that a Batcher has as much waiting as it may.
var ErrQueueFull = errors.New("sqldb: the queue of what is to be committed is full")

// ErrStopped says that a Batcher takes nothing any more.
var ErrStopped = errors.New("sqldb: stopped")

// Batcher is the group commit: while one batch is being committed the next one gathers, and is committed when that is
// done. An idle Batcher commits a lone item at once.
//
// Items of one lane are handed over in the order in which they were put, never two batches of a lane at a time. A second
// writer begins only when a whole batch waits: two small commits cost more than one of both. For the same reason a writer
// whose batch held several items waits a moment for as many more: who was just answered may come again.
type Batcher[T any] struct {
	o    BatcherOptions[T]
	wake chan struct{} // room for each writer

	enough chan struct{} // holds one: as many wait as the writer wants that gathers

	mu      sync.Mutex
	waiting []queued[T]
	wanted  int          // 0: nobody gathers
	busy    map[int]bool // lanes of batches under way
	working int          // writers that have one
	stopped bool
}

type queued[T any] struct {
	lane int
	at   time.Time
	item T
}

// BatcherOptions say what a Batcher does, and bound it.
type BatcherOptions[T any] struct {
	Writers  int           // how many batches may be committed at a time; on SQLite one is enough
	BatchMax int           // items that are committed together
	QueueMax int           // items that may wait
	WaitMax  time.Duration // how long one may wait; 0: any time
	// Commit gives every item its answer itself; its items are its own.
	Commit func(ctx context.Context, items []T)
	// Expire answers an item that has waited for WaitMax, and will not be committed.
	Expire func(T)
}

// NewBatcher makes a Batcher, which works while Run does.
func NewBatcher[T any](o BatcherOptions[T]) *Batcher[T] {
	return &Batcher[T]{o: o, wake: make(chan struct{}, o.Writers), enough: make(chan struct{}, 1), busy: map[int]bool{}}
}

// Put has item committed in its turn. It does not wait.
// Errors: ErrQueueFull, ErrStopped.
func (b *Batcher[T]) Put(lane int, item T) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return ErrStopped
	}
	if len(b.waiting) >= b.o.QueueMax {
		return ErrQueueFull
	}
	b.waiting = append(b.waiting, queued[T]{lane, time.Now(), item})
	if b.working == 0 || len(b.waiting)%b.o.BatchMax == 0 {
		b.rouse()
	}
	if len(b.waiting) == b.wanted {
		select {
		case b.enough <- struct{}{}:
		default:
		}
	}
	return nil
}

// rouse wakes a writer that rests, if there is one.
func (b *Batcher[T]) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Waiting is how many items wait.
func (b *Batcher[T]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// Run commits until ctx ends; what had been put by then is still committed before it returns.
func (b *Batcher[T]) Run(ctx context.Context) error {
	var writers, clock sync.WaitGroup
	work := context.WithoutCancel(ctx)
	over := make(chan struct{})
	for range b.o.Writers {
		writers.Go(func() {
			for {
				select {
				case <-b.wake:
					b.work(work)
				case <-over:
					b.work(work)
					return
				}
			}
		})
	}
	if b.o.WaitMax > 0 {
		clock.Go(func() { b.expire(over) })
	}
	<-ctx.Done()
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	close(over)
	clock.Wait()
	writers.Wait()
	return ctx.Err()
}

// work commits batches until none is to be had.
func (b *Batcher[T]) work(ctx context.Context) {
	var lanes []int
	for {
		// Whoever is about to put something gets to run first. On a busy node this is what makes batches:
		// the scheduler would run this goroutine right after the first Put. On an idle one it costs nothing.
		runtime.Gosched()
		var batch []T
		if batch, lanes = b.take(lanes); len(batch) == 0 {
			return
		}
		began := time.Now()
		b.o.Commit(ctx, batch)
		if len(batch) > 1 {
			b.gather(len(batch), min(time.Since(began)/2, gatherMax))
		}
	}
}

// gatherMax bounds what a busy writer waits for company.
const gatherMax = 2 * time.Millisecond

// gather waits until n items more wait than now, or for most.
func (b *Batcher[T]) gather(n int, most time.Duration) {
	b.mu.Lock()
	if n += len(b.waiting); n > b.o.BatchMax || b.wanted > 0 || b.stopped {
		b.mu.Unlock()
		return
	}
	b.wanted = n
	b.mu.Unlock()
	timer := time.NewTimer(most)
	select {
	case <-b.enough:
	case <-timer.C:
	}
	timer.Stop()
	b.mu.Lock()
	b.wanted = 0
	select {
	case <-b.enough: // it came too late, and is not for the next one
	default:
	}
	b.mu.Unlock()
}

// take ends the batch that was in lanes, if there was one, and begins the next with what has waited longest, but for lanes
// that other batches are in.
func (b *Batcher[T]) take(lanes []int) (batch []T, next []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range lanes {
		delete(b.busy, l)
	}
	if len(lanes) > 0 {
		b.working--
	}
	if b.working > 0 && len(b.waiting) < b.o.BatchMax && !b.stopped {
		return nil, nil // another writer takes it when its batch is done
	}
	next = lanes[:0]
	mine := map[int]bool{}
	rest := b.waiting[:0]
	for _, q := range b.waiting {
		if len(batch) == b.o.BatchMax || b.busy[q.lane] {
			rest = append(rest, q)
			continue
		}
		if !mine[q.lane] {
			mine[q.lane] = true
			next = append(next, q.lane)
		}
		batch = append(batch, q.item)
	}
	clear(b.waiting[len(rest):])
	b.waiting = rest
	if len(rest) == 0 && cap(rest) > b.o.BatchMax {
		b.waiting = nil // The room of a burst is given back.
	}
	for _, l := range next {
		b.busy[l] = true
	}
	if len(batch) > 0 {
		b.working++
		if len(rest) >= b.o.BatchMax {
			b.rouse()
		}
	}
	return batch, next
}

// expire answers what has waited too long, until over is closed.
func (b *Batcher[T]) expire(over <-chan struct{}) {
	tick := time.NewTicker(b.o.WaitMax / 4)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case now := <-tick.C:
			for _, q := range b.overdue(now.Add(-b.o.WaitMax)) {
				b.o.Expire(q.item)
			}
		}
	}
}

// overdue takes out what has waited since before a time.
func (b *Batcher[T]) overdue(before time.Time) []queued[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.waiting) && b.waiting[n].at.Before(before) { // the oldest stand first
		n++
	}
	late := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	return late
}
