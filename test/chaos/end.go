package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// end brings a run to rest in which nothing is harmed any more, nor under way since then, and reads what is there.
func (r *run) end(ctx context.Context) error {
	r.work.Wait()
	r.mark(history.Line{Kind: history.Settled})
	if err := r.gather(ctx); err != nil {
		return err
	}
	if err := r.rest(ctx); err != nil {
		return err
	}
	r.mark(history.Line{Kind: history.Quiet})
	if err := r.readAll(ctx); err != nil {
		return err
	}
	return bench.Sleep(ctx, time.Second) // What comes now came too late, or should not.
}

// gather makes all guests members again, and has something said in every conversation at every node.
func (r *run) gather(ctx context.Context) error {
	nodes := r.world.Nodes()
	for i, g := range r.guests {
		if err := r.sure(ctx, nodes[i%len(nodes)], func(node *world.Node) history.Line { return r.addMember(ctx, node, g) }); err != nil {
			return fmt.Errorf("adding %s: %w", g.user, err)
		}
	}
	for _, c := range r.all {
		for _, node := range nodes {
			d := c.owner.draft(c.id)
			if err := r.sure(ctx, node, func(node *world.Node) history.Line { return r.post(ctx, node, d) }); err != nil {
				return fmt.Errorf("the last send in %s: %w", c.id, err)
			}
		}
	}
	return nil
}

// tries is how often something is tried in a world that is well, a while apart.
const tries = 20

// sure does something until it is done.
func (r *run) sure(ctx context.Context, node *world.Node, do func(*world.Node) history.Line) error {
	var out history.Line
	for range tries {
		if out = do(node); out.Phase == history.OK {
			return nil
		}
		if err := bench.Sleep(ctx, retryAfter); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not do it: %s %s", node.Name, out.Phase, out.Code)
}

// rest waits until all devices are connected and have everything, and nothing has come for a while.
func (r *run) rest(ctx context.Context) error {
	deadline := time.Now().Add(quietMax)
	heard, since := r.heard.Load(), time.Now()
	for time.Since(since) < quietFor {
		if err := bench.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		unsettled := ""
		for _, d := range r.devices {
			if !d.settled() {
				unsettled = d.name
			}
		}
		if now := r.heard.Load(); now != heard || unsettled != "" {
			heard, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			if unsettled == "" {
				return errors.New("the devices hear something new all the time")
			}
			return fmt.Errorf("%s has not come to rest in %s", unsettled, quietMax)
		}
	}
	return nil
}

// readAll reads every history at every node, and what the archives missed.
func (r *run) readAll(ctx context.Context) error {
	nodes := r.world.Nodes()
	for _, c := range r.all {
		for _, node := range nodes {
			l := history.Line{User: c.owner.name, Conversation: c.id, Limit: 100, Final: true}
			for {
				out := r.page(ctx, node, l)
				if out.Phase != history.OK {
					return fmt.Errorf("the final history of %s at %s: %s %s", c.id, node.Name, out.Phase, out.Code)
				}
				if !out.More {
					break
				}
				l.Before = out.Rows[0].Seq
			}
			r.members(ctx, node, c.owner.name, c.id)
		}
	}
	for i, a := range r.archives {
		for more, cursor := true, a.cursor; more; {
			out := r.sync(ctx, nodes[i%len(nodes)], a.user, "archive-"+a.user, cursor)
			if out.Phase != history.OK {
				return fmt.Errorf("%s cannot catch up: %s %s", a.user, out.Phase, out.Code)
			}
			more, cursor = out.More, out.Cursor
		}
	}
	return nil
}
