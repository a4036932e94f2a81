package main

import (
	"context"
	"math/rand/v2"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// usual are the habits of people.
func (r *run) usual() habits {
	act := anything
	if r.sendsOnly {
		act = func(c *connection, _ context.Context) { c.write(c.person.draft(c.conversation())) }
	}
	return habits{
		act: act, stall: stallMax, window: windowUsual,
		pause: func(random *rand.Rand) time.Duration {
			mean := time.Second * time.Duration(len(r.devices)) / time.Duration(r.rate)
			return mean/2 + time.Duration(random.Int64N(int64(mean)))
		},
		stay: func(random *rand.Rand) time.Duration { return time.Duration(1000+random.IntN(9000)) * time.Millisecond },
		away: func(random *rand.Rand) time.Duration {
			if random.IntN(8) == 0 {
				return time.Duration(1+random.IntN(6)) * time.Second
			}
			return time.Duration(50+random.IntN(450)) * time.Millisecond
		},
	}
}

// anything is one thing that somebody with a connection does. Of a hundred, so many are each.
func anything(c *connection, ctx context.Context) {
	p := c.person
	switch n := c.random.IntN(100); {
	case n < 52:
		c.write(p.draft(c.conversation()))
	case n < 60:
		d := p.draft(c.conversation())
		c.elsewhere(func(node *world.Node) { c.settleByREST(d, c.run.post(ctx, node, d)) })
	case n < 64: // What was acknowledged is sent again, as after an acknowledgement that got lost.
		if t, found := p.pick(true, c.random.IntN); found && t.draft.clientMessageID != "" {
			c.elsewhere(func(node *world.Node) { c.run.post(ctx, node, t.draft) })
		}
	case n < 66: // The same at once at two nodes, or twice at one.
		d := p.draft(c.conversation())
		if d.clientMessageID != "" {
			c.elsewhere(func(node *world.Node) { c.settleByREST(d, c.run.post(ctx, node, d)) })
			c.elsewhere(func(node *world.Node) { c.run.post(ctx, node, d) })
		}
	case n < 67: // Another message under an id that was used: it is to be refused.
		if t, found := p.pick(true, c.random.IntN); found && t.draft.clientMessageID != "" {
			d := p.draft(t.conversation)
			d.clientMessageID = t.draft.clientMessageID
			c.elsewhere(func(node *world.Node) { c.run.post(ctx, node, d) })
		}
	case n < 68: // To where one never was.
		d := p.draft(p.elsewhere)
		c.elsewhere(func(node *world.Node) { c.run.post(ctx, node, d) })
	case n < 76:
		c.change(ctx)
	case n < 77: // Another's message.
		if t, found := p.pick(false, c.random.IntN); found {
			c.elsewhere(func(node *world.Node) { c.run.edit(ctx, node, p.name, t) })
		}
	case n < 80:
		if t, found := p.pick(true, c.random.IntN); found {
			c.elsewhere(func(node *world.Node) { c.run.remove(ctx, node, p.name, t) })
		}
	case n < 95:
		l := c.someRange()
		c.elsewhere(func(node *world.Node) { c.run.page(ctx, node, l) })
	default:
		conversation := c.conversation()
		c.elsewhere(func(node *world.Node) { c.run.members(ctx, node, p.name, conversation) })
	}
}

// conversation chooses one: the first of a person's, where all are, as often as all others together.
func (c *connection) conversation() string {
	all := c.person.conversations
	if c.random.IntN(2) == 0 {
		return all[0]
	}
	return all[c.random.IntN(len(all))]
}

// write sends a draft on the connection, and again until its outcome is known.
func (c *connection) write(d *draft) {
	p := &pending{draft: d, under: true}
	c.mu.Lock()
	c.drafts = append(c.drafts, p)
	c.mu.Unlock()
	c.send(p)
}

// settleByREST does what follows from an attempt by REST: the device sends it again on its connection if need be.
func (c *connection) settleByREST(d *draft, l history.Line) {
	p := &pending{draft: d}
	c.mu.Lock()
	c.drafts = append(c.drafts, p)
	c.mu.Unlock()
	c.settle(p, &l)
}

// change edits an own message, on the connection or by REST.
func (c *connection) change(ctx context.Context) {
	t, found := c.person.pick(true, c.random.IntN)
	switch {
	case !found:
	case c.random.IntN(2) == 0:
		c.elsewhere(func(node *world.Node) { c.run.edit(ctx, node, c.person.name, t) })
	default:
		version := c.run.version()
		c.emit(history.Line{Kind: history.Edit, Conversation: t.conversation, Message: t.id, Seq: t.seq, Name: t.name, Version: version}, "edit-message",
			map[string]any{"message_id": t.id, "content": text(t.name, version)}, acknowledged, nil)
	}
}

// someRange chooses a page of a history.
func (c *connection) someRange() history.Line {
	l := history.Line{User: c.person.name, Conversation: c.conversation(), Limit: []int{10, 50, 100}[c.random.IntN(3)]}
	if top := c.person.top(l.Conversation); top > 1 {
		switch c.random.IntN(3) {
		case 0:
			l.Before = 1 + c.random.Int64N(top)
		case 1:
			l.After = 1 + c.random.Int64N(top)
		}
	}
	return l
}

// elsewhere has something done by REST at any node, unless too much is under way.
func (c *connection) elsewhere(do func(*world.Node)) {
	nodes := c.run.world.Nodes()
	node := nodes[c.random.IntN(len(nodes))]
	select {
	case c.asking <- struct{}{}:
	default:
		return
	}
	c.run.work.Go(func() {
		defer func() { <-c.asking }()
		do(node)
	})
}

// keep removes guests from their group and adds them again, all the time, one after the other.
func (r *run) keep(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		g := r.guests[random.IntN(len(r.guests))]
		if r.insist(ctx, random, func(node *world.Node) history.Line { return r.removeMember(ctx, node, g) }) {
			r.sleep(ctx, time.Duration(random.IntN(400))*time.Millisecond)
			r.insist(ctx, random, func(node *world.Node) history.Line { return r.addMember(ctx, node, g) })
		}
		r.sleep(ctx, time.Duration(random.IntN(300))*time.Millisecond)
	}
}

// insist does something, at one node and then another, until it is done, and reports whether it is: not when ctx ended.
func (r *run) insist(ctx context.Context, random *rand.Rand, do func(*world.Node) history.Line) bool {
	nodes := r.world.Nodes()
	for ctx.Err() == nil {
		if do(nodes[random.IntN(len(nodes))]).Phase == history.OK {
			return true
		}
		r.sleep(ctx, 100*time.Millisecond)
	}
	return false
}

// probeEvery is the time between two sends that only ask whether a node acknowledges any.
const probeEvery = 200 * time.Millisecond

// probe sends to a node all the time, without waiting for the answers, until ctx ends.
func (r *run) probe(ctx context.Context, node *world.Node, p *person) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d := p.draft(p.conversations[0])
			r.work.Go(func() { r.post(context.WithoutCancel(ctx), node, d) })
		}
	}
}
