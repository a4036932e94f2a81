package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// scenario is a run in which one thing is done very often, without faults.
type scenario func(ctx context.Context, r *run, o scenarioOptions) error

// scenarioOptions say how much.
type scenarioOptions struct {
	messages int // of writers
	times    int // of removal
	clients  int // of storm
}

var scenarios = map[string]scenario{"writers": writers, "removal": removal, "storm": storm, "overload": overload}

// play runs a scenario in a world of its own, and judges it.
func play(ctx context.Context, o options, s scenario, so scenarioOptions) (outcome, error) {
	o.faults = []string{}
	r, finish, err := prepare(ctx, o)
	if err != nil {
		return outcome{}, err
	}
	if err := s(ctx, r, so); err != nil {
		r.fail(err)
	}
	return finish()
}

// silent are the habits of a device that only listens, for a time, or for ever if that is 0.
func silent(stay time.Duration) habits {
	always := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(*rand.Rand) time.Duration { return d }
	}
	h := habits{act: func(*connection, context.Context) {}, pause: always(time.Second), stay: always(stay), away: always(0), stall: stallMax}
	if stay == 0 {
		h.stay = always(1 << 62)
	}
	return h
}

const (
	writersCount = 32
	readersCount = 6
	// resumeEvery is how long a reader keeps a connection.
	resumeEvery = 200 * time.Millisecond
	// Of so many messages of a writer one is edited, and one deleted.
	editOf, deleteOf = 20, 50
)

// writers has 32 of them write into one conversation, at all nodes, while others read it who resume every 200 ms.
func writers(ctx context.Context, r *run, o scenarioOptions) error {
	for range writersCount + readersCount {
		r.person()
	}
	hot, err := r.found(ctx, "group", r.people)
	if err != nil {
		return err
	}
	for _, p := range r.people[writersCount:] {
		r.device(p, silent(resumeEvery))
	}
	defer r.connect(ctx)()
	began := time.Now()
	var left atomic.Int64
	left.Store(int64(o.messages))
	var writing sync.WaitGroup
	for i, p := range r.people[:writersCount] {
		random := r.random(1000 + i)
		writing.Go(func() {
			for n := 1; left.Add(-1) >= 0 && ctx.Err() == nil; n++ {
				d := p.draft(hot.id)
				r.insist(ctx, random, func(node *world.Node) history.Line {
					out := r.post(ctx, node, d)
					if out.Phase == history.OK {
						p.sent(d, out.Rows[0])
					}
					return out
				})
				t, _ := p.pick(true, random.IntN)
				node := r.world.Nodes()[n%len(r.world.Nodes())]
				if n%editOf == 0 {
					r.edit(ctx, node, p.name, t)
				}
				if n%deleteOf == 0 {
					r.remove(ctx, node, p.name, t)
				}
			}
		})
	}
	writing.Wait()
	fmt.Printf("%d messages in %.1f s\n", o.messages, time.Since(began).Seconds())
	r.parting.Store(false)
	return r.end(ctx)
}

const (
	// removalLanes is how many groups there are, each with a member who is removed again and again.
	removalLanes   = 4
	removalSenders = 16
	// ownSenders is how many of the sends that race with a removal are the member's own.
	ownSenders = 4
)

// removal removes a member while 16 sends race with it, his own among them, and has him and others send once more when it is acknowledged.
func removal(ctx context.Context, r *run, o scenarioOptions) error {
	var lanes []guest
	var senders [][]*person
	for range removalLanes {
		members := []*person{}
		for range 2 + removalSenders - ownSenders { // the owner and the member besides
			members = append(members, r.person())
		}
		group, err := r.found(ctx, "group", members)
		if err != nil {
			return err
		}
		lanes, senders = append(lanes, guest{members[1].name, group}), append(senders, members[1:])
		for range r.world.Nodes() {
			r.device(members[1], silent(0))
		}
	}
	r.guests = lanes
	defer r.connect(ctx)()
	r.parting.Store(false)
	began := time.Now()
	var running sync.WaitGroup
	for i, g := range lanes {
		random := r.random(1000 + i)
		running.Go(func() {
			for range o.times / removalLanes {
				if ctx.Err() != nil {
					return
				}
				r.race(ctx, g, senders[i], random)
			}
		})
	}
	running.Wait()
	fmt.Printf("%d removals in %.1f s\n", o.times/removalLanes*removalLanes, time.Since(began).Seconds())
	return r.end(ctx)
}

// race removes a member once. members[0] is he.
func (r *run) race(ctx context.Context, g guest, members []*person, random *rand.Rand) {
	nodes := r.world.Nodes()
	var racing sync.WaitGroup
	send := func(p *person) {
		node, d := nodes[random.IntN(len(nodes))], p.draft(g.group.id)
		racing.Go(func() { r.post(ctx, node, d) })
	}
	remover := rand.New(rand.NewPCG(random.Uint64(), 0)) // It is used beside random.
	at := random.IntN(removalSenders)
	for i := range removalSenders {
		if i == at {
			racing.Go(func() {
				r.insist(ctx, remover, func(node *world.Node) history.Line { return r.removeMember(ctx, node, g) })
			})
		}
		if i%(removalSenders/ownSenders) == 0 {
			send(members[0])
		} else {
			send(members[1+i%(len(members)-1)])
		}
	}
	racing.Wait()
	send(members[0])
	send(members[1])
	racing.Wait()
	r.insist(ctx, random, func(node *world.Node) history.Line { return r.addMember(ctx, node, g) })
}
