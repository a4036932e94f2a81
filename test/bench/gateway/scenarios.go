package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"parley/test/bench"
)

// sizes are how much load there is. A test uses small ones.
type sizes struct {
	span         time.Duration // of each measurement
	rounds       int
	connections  int
	rooms        []int // sizes of rooms
	windows      []int // messages under way to each connection, the smallest first
	messageBytes int

	latencyRoom   int
	latencyPerSec int // deliveries

	idle         int // connections
	idleRoom     int // size of their rooms
	idleRooms    int // of each
	idleSettle   time.Duration
	stalled      int // clients that stop reading, as many as those that go on
	stalledBytes []int
	stalledMax   time.Duration
}

// scenario measures one server at a time.
type scenario struct {
	name string
	who  []string
	// variants are what it is run for, one after the other, such as sizes of rooms.
	variants func(z sizes) []int
	run      func(ctx context.Context, m measurement) error
}

// measurement is one run of a scenario.
type measurement struct {
	*server
	sizes
	variant int
	add     func(figure string, value float64)
}

var scenarios = []scenario{
	{name: "saturated", who: []string{gateway, node, centrifuge, batching, floor, batchFloor}, run: saturated,
		variants: func(z sizes) []int { return z.rooms }},
	{name: "latency", who: []string{gateway, node, centrifuge, floor, whole}, run: latency,
		variants: func(z sizes) []int { return []int{z.latencyRoom} }},
	{name: "idle", who: []string{gateway, node, centrifuge, whole}, run: idle,
		variants: func(z sizes) []int { return []int{z.idle} }},
	{name: "slow", who: []string{gateway, node, centrifuge}, run: slow,
		variants: func(z sizes) []int { return z.stalledBytes }},
}

// The figures that the scenarios add.
const (
	perCPUSecond = "deliveries for a server CPU-second"
	perSecond    = "deliveries/s"
	serverCore   = "server core"
	loadCore     = "load core"
	p50          = "p50"
	p99          = "p99"
	connects     = "connects/s"
	connectCost  = "CPU-seconds for 1,000 connects"
	held         = "resident bytes a connection"
	heldAtLeast  = "resident bytes a connection, garbage collected"
	p99Alone     = "p99 without others"
	p99Among     = "p99 with others that read"
	p99Stopped   = "p99 with others that stopped reading"
	memory       = "memory at its peak"
	kernelMemory = "memory of sockets at its peak"
	cutAfter     = "all cut after"
	notCut       = "not cut"
)

// readings are the counters at one moment.
type readings struct {
	at           time.Time
	server, load float64 // CPU-seconds
	deliveries   int64
}

func (c *crowd) now() (readings, error) {
	server, err := c.server.CPUSeconds()
	if err != nil {
		return readings{}, err
	}
	load, err := bench.OwnCPUSeconds()
	return readings{at: time.Now(), server: server, load: load, deliveries: c.deliveries.Load()}, err
}

// busy adds what share of their cores server and load used.
func (r readings) busy(from readings, add func(figure string, value float64)) {
	seconds := r.at.Sub(from.at).Seconds()
	add(serverCore, (r.server-from.server)/seconds)
	add(loadCore, (r.load-from.load)/seconds)
}

// saturated publishes as fast as the server takes it, with a bounded number of messages under way to each connection: its windows in turn.
func saturated(ctx context.Context, m measurement) error {
	c, err := m.fill(ctx, m.connections, m.variant, m.messageBytes)
	if err != nil {
		return err
	}
	defer c.close()
	for _, window := range m.windows {
		limit := int64(window * m.connections)
		if _, _, err := c.flood(ctx, limit, warmUp(m.span)); err != nil {
			return err
		}
		from, to, err := c.flood(ctx, limit, m.span)
		if err != nil {
			return err
		}
		add := func(figure string, value float64) { m.add(atWindow(figure, window), value) }
		deliveries := float64(to.deliveries - from.deliveries)
		add(perCPUSecond, deliveries/(to.server-from.server))
		add(perSecond, deliveries/to.at.Sub(from.at).Seconds())
		to.busy(from, add)
		if err := c.makeRoom(ctx, 0); err != nil {
			return err
		}
	}
	return c.settle(ctx)
}

// atWindow is the name of a figure that was measured with a window.
func atWindow(figure string, window int) string { return fmt.Sprintf("%s, window %d", figure, window) }

// flood publishes to the rooms in turn for a time, so that at most limit deliveries are under way, and returns the readings at its ends.
func (c *crowd) flood(ctx context.Context, limit int64, span time.Duration) (from, to readings, err error) {
	size := int64(c.sizes[0])
	refill := limit - max(size, limit/4) // Waking for each single delivery would be the load's main work.
	if from, err = c.now(); err != nil {
		return from, to, err
	}
	for end, room := from.at.Add(span), 0; time.Now().Before(end); room = (room + 1) % len(c.numbers) {
		if c.outstanding()+size > limit {
			if err := c.makeRoom(ctx, refill); err != nil {
				return from, to, err
			}
		}
		if err := c.publish(room); err != nil {
			return from, to, err
		}
	}
	to, err = c.now()
	return from, to, err
}

// makeRoom flushes, and waits until at most that many deliveries are under way.
func (c *crowd) makeRoom(ctx context.Context, outstanding int64) error {
	if err := c.server.flush(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	if err := c.waitUntil(ctx, outstanding); err != nil {
		return errors.Join(c.err(), err)
	}
	return nil
}

// warmUp is how long a server is loaded before it is measured.
func warmUp(span time.Duration) time.Duration { return min(2*time.Second, span/2) }

// fill puts count clients into rooms of a size, one each.
func (m measurement) fill(ctx context.Context, count, size, messageBytes int) (*crowd, error) {
	places, err := m.inRooms(ctx, count, size)
	if err != nil {
		return nil, err
	}
	return enter(ctx, m.server, places, count/size, messageBytes, busyBuffer)
}

// latency publishes at a fixed rate, whatever the server manages.
func latency(ctx context.Context, m measurement) error {
	c, err := m.fill(ctx, m.connections, m.variant, m.messageBytes)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.atRate(ctx, m.latencyPerSec, warmUp(m.span), nil); err != nil {
		return err
	}
	from, err := c.now()
	if err != nil {
		return err
	}
	h, err := c.atRate(ctx, m.latencyPerSec, m.span, nil)
	if err != nil {
		return err
	}
	to, err := c.now()
	if err != nil {
		return err
	}
	m.add(p50, h.Quantile(0.5).Seconds())
	m.add(p99, h.Quantile(0.99).Seconds())
	m.add(perSecond, float64(to.deliveries-from.deliveries)/to.at.Sub(from.at).Seconds())
	m.add(perCPUSecond, float64(to.deliveries-from.deliveries)/(to.server-from.server))
	to.busy(from, m.add)
	return nil
}

// atRate publishes to the rooms in turn, for so many deliveries a second, for a time or until done says so, which is asked ten times a
// second if it is not nil. It returns how long the deliveries took, when they have all come. The schedule does not wait for a slow server:
// what is late is sent at once.
func (c *crowd) atRate(ctx context.Context, rate int, span time.Duration, done func() (bool, error)) (*bench.Histogram, error) {
	h := &bench.Histogram{}
	c.timing.Store(h)
	every := time.Second * time.Duration(c.sizes[0]) / time.Duration(rate)
	begun, asked := time.Now(), time.Now()
	for i := 0; time.Since(begun) < span; i++ {
		if wait := time.Until(begun.Add(time.Duration(i) * every)); wait > 0 {
			if err := bench.Sleep(ctx, wait); err != nil {
				return nil, err
			}
		}
		if err := c.publish(i % len(c.numbers)); err != nil {
			return nil, err
		}
		if err := c.server.flush(); err != nil {
			return nil, err
		}
		if done != nil && time.Since(asked) > 100*time.Millisecond {
			asked = time.Now()
			ended, err := done()
			if err != nil {
				return nil, err
			}
			if ended {
				break
			}
		}
	}
	return h, c.settle(ctx)
}

// idle connects many clients, each to several rooms, and measures what that took and what the server then holds.
func idle(ctx context.Context, m measurement) error {
	count := m.variant
	places, err := m.inManyRooms(ctx, count, m.idleRoom, m.idleRooms)
	if err != nil {
		return err
	}
	if err := bench.Sleep(ctx, m.idleSettle/8); err != nil {
		return err
	}
	before, err := m.ResidentBytes()
	if err != nil {
		return err
	}
	empty := &crowd{tally: &tally{}, server: m.server}
	from, err := empty.now()
	if err != nil {
		return err
	}
	c, err := enter(ctx, m.server, places, count/m.idleRoom, m.messageBytes, idleBuffer)
	if err != nil {
		return err
	}
	defer c.close()
	to, err := c.now()
	if err != nil {
		return err
	}
	m.add(connects, float64(count)/to.at.Sub(from.at).Seconds())
	m.add(connectCost, 1000*(to.server-from.server)/float64(count))
	to.busy(from, m.add)
	if err := bench.Sleep(ctx, m.idleSettle); err != nil {
		return err
	}
	holds := func(figure string) error {
		resident, err := m.ResidentBytes()
		m.add(figure, float64(resident-before)/float64(count))
		return err
	}
	if err := holds(held); err != nil {
		return err
	}
	if asked, err := m.collect(); err != nil {
		return err
	} else if asked {
		if err := bench.Sleep(ctx, min(5*time.Second, m.idleSettle)); err != nil {
			return err
		}
		if err := holds(heldAtLeast); err != nil {
			return err
		}
	}
	// All of them must still be there, and in their roomm.
	for room := range c.numbers {
		if err := c.publish(room); err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil {
		return err
	}
	return c.settle(ctx)
}

// slow measures what clients that stop reading cost those that read: first without others, then with as many others in the same rooms that
// read too, then with as many that have stopped, until the server has cut them off or the time is over.
func slow(ctx context.Context, m measurement) error {
	c, err := m.fill(ctx, m.stalled, m.latencyRoom, m.variant)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.atRate(ctx, m.latencyPerSec, warmUp(m.span), nil); err != nil {
		return err
	}
	alone, err := c.atRate(ctx, m.latencyPerSec, m.span, nil)
	if err != nil {
		return err
	}
	open, err := m.Descriptors()
	if err != nil {
		return err
	}
	places, err := m.inRooms(ctx, m.stalled, m.latencyRoom)
	if err != nil {
		return err
	}
	if err := c.enter(ctx, places, busyBuffer); err != nil {
		return err
	}
	rate := 2 * m.latencyPerSec // As many messages, each for twice as many clients.
	among, err := c.atRate(ctx, rate, m.span, nil)
	if err != nil {
		return err
	}
	c.leave(m.stalled)
	if err := m.Ready(ctx, settleMax, func() bool { now, err := m.Descriptors(); return err == nil && now <= open }); err != nil {
		return err
	}

	if err := c.enter(ctx, places, 0); err != nil {
		return err
	}
	if err := m.ForgetPeak(); err != nil {
		return err
	}
	before, err := m.ResidentBytes()
	if err != nil {
		return err
	}
	inKernel, err := bench.SocketBytes()
	if err != nil {
		return err
	}
	begun, cut, kernelPeak := time.Now(), math.NaN(), inKernel
	with, err := c.atRate(ctx, m.latencyPerSec, m.stalledMax, func() (bool, error) {
		bytes, err := bench.SocketBytes()
		if err != nil {
			return false, err
		}
		kernelPeak = max(kernelPeak, bytes)
		now, err := m.Descriptors()
		if now <= open && err == nil {
			cut = time.Since(begun).Seconds()
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return err
	}
	peak, err := m.ResidentPeakBytes()
	if err != nil {
		return err
	}
	left, err := m.Descriptors()
	if err != nil {
		return err
	}
	m.add(p99Alone, alone.Quantile(0.99).Seconds())
	m.add(p99Among, among.Quantile(0.99).Seconds())
	m.add(p99Stopped, with.Quantile(0.99).Seconds())
	m.add(memory, float64(peak-before))
	m.add(kernelMemory, float64(kernelPeak-inKernel))
	m.add(cutAfter, cut)
	m.add(notCut, float64(left-open))
	return c.settle(ctx)
}
