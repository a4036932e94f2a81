package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley/test/bench"
)

const (
	// warmUpMax comes before each measurement, half its length if that is less.
	warmUpMax = time.Second
	// settleMax bounds the wait for deliveries that are still under way when the senders have stopped.
	settleMax = 20 * time.Second
	// sendMax bounds a closed-loop measurement beyond its planned time, for a server that stops answering.
	sendMax = 15 * time.Second
	// dialAtOnce is how many clients sign in at the same time.
	dialAtOnce = 32
)

// crowd is a set of signed-in clients with their common tally.
type crowd struct {
	*tally
	clients []*client
}

// connect signs in all users, some at a time.
func connect(ctx context.Context, s *bench.Parley, users []string, bufferBytes int) (*crowd, error) {
	c := &crowd{tally: newTally(), clients: make([]*client, len(users))}
	var wg sync.WaitGroup
	errs := make([]error, len(users))
	gate := make(chan struct{}, dialAtOnce)
	for i, user := range users {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if ctx.Err() == nil {
				c.clients[i], errs[i] = dial(ctx, s.Address, s.Token(user), bufferBytes, c.tally)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err == nil && c.clients[i] == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("client %d of %d: %w", i+1, len(users), err)
		}
	}
	return c, nil
}

func (c *crowd) close() {
	for _, client := range c.clients {
		if client != nil {
			client.close()
		}
	}
}

// figures are what was measured between two moments.
type figures struct {
	seconds           float64
	sends, deliveries float64
	cpuSeconds        float64 // of the server and its database
	commits           float64 // -1 if the server does not tell
	ack, endToEnd     *bench.Histogram
}

// measure lets each sender post to its conversation, one message at a time, for a while and then for the time span, and
// returns the figures of the span. It then waits until every one of the sends, each of which is for audience
// connections, has arrived: a delivery that is lost is an error, and so is a refused send or a lost connection.
func (c *crowd) measure(ctx context.Context, s *bench.Parley, senders []*client, conversations []string, audience int, span time.Duration) (figures, error) {
	warmUp := min(warmUpMax, span/2)
	ctx, cancel := context.WithTimeout(ctx, warmUp+span+sendMax)
	defer cancel()
	var ack bench.Histogram
	var from, to moment
	acksBefore, deliveriesBefore := c.acks.Load(), c.deliveries.Load()

	measuring, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, len(senders))
	for i, sender := range senders {
		wg.Go(func() {
			for {
				begun := time.Now()
				if errs[i] = sender.send(ctx, conversations[i]); errs[i] != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-measuring:
					ack.Add(time.Since(begun))
				default:
				}
			}
		})
	}
	err := bench.Sleep(ctx, warmUp)
	if err == nil {
		if from, err = c.now(s); err == nil {
			c.endToEnd.Store(&bench.Histogram{})
			close(measuring)
			err = bench.Sleep(ctx, span)
		}
	}
	if err == nil {
		to, err = c.now(s)
	}
	close(stop)
	wg.Wait()
	for _, failed := range errs {
		if failed != nil {
			return figures{}, failed // one stands for all, which mostly fail alike
		}
	}
	if err != nil {
		return figures{}, err
	}
	f := to.since(from)
	f.ack, f.endToEnd = &ack, c.endToEnd.Load()
	return f, c.settle(ctx, acksBefore, deliveriesBefore, audience)
}

// settle waits for what the sends since acksBefore owe, and reports what went wrong.
func (c *crowd) settle(ctx context.Context, acksBefore, deliveriesBefore int64, audience int) error {
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	owed := (c.acks.Load() - acksBefore) * int64(audience)
	for {
		got := c.deliveries.Load() - deliveriesBefore
		switch {
		case c.refused.Load() > 0:
			return fmt.Errorf("%d sends were refused: %s", c.refused.Load(), *c.refusal.Load())
		case c.lost.Load() > 0:
			return fmt.Errorf("%d connections were lost", c.lost.Load())
		case got == owed:
			return nil
		case got > owed:
			return fmt.Errorf("%d deliveries, want %d: some came twice", got, owed)
		}
		if err := bench.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d deliveries, want %d, %s after the last send: %w", got, owed, settleMax, err)
		}
	}
}

// moment is a reading of all counters.
type moment struct {
	at                  time.Time
	acks, deliveries    int64
	cpuSeconds, commits float64
}

func (c *crowd) now(s *bench.Parley) (moment, error) {
	cpu, err := s.CPUSeconds()
	if err != nil {
		return moment{}, err
	}
	commits, err := s.Metric("parley_sqldb_commits_total")
	if errors.Is(err, bench.ErrNoMetric) {
		commits, err = -1, nil
	}
	return moment{at: time.Now(), acks: c.acks.Load(), deliveries: c.deliveries.Load(), cpuSeconds: cpu, commits: commits}, err
}

func (m moment) since(from moment) figures {
	f := figures{seconds: m.at.Sub(from.at).Seconds(), sends: float64(m.acks - from.acks),
		deliveries: float64(m.deliveries - from.deliveries), cpuSeconds: m.cpuSeconds - from.cpuSeconds, commits: -1}
	if from.commits >= 0 && m.commits >= 0 {
		f.commits = m.commits - from.commits
	}
	return f
}
