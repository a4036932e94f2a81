package main

import (
	"context"
	"fmt"
	"slices"
)

// groupSize is the members of a group beside the one where all are.
const groupSize = 5

// guest is a member of a group who is removed and added again by its owner.
type guest struct {
	user  string
	group conversation
}

// person makes another person.
func (r *run) person() *person {
	p := &person{name: fmt.Sprintf("u%d", len(r.people)), tops: map[string]int64{}}
	r.people = append(r.people, p)
	return p
}

// found makes a conversation of people, the first of them its owner.
func (r *run) found(ctx context.Context, kind string, members []*person) (conversation, error) {
	var others []string
	for _, p := range members[1:] {
		others = append(others, p.name)
	}
	id, err := r.create(ctx, r.world.Nodes()[0], kind, members[0].name, others)
	if err != nil {
		return conversation{}, err
	}
	for _, p := range members {
		p.conversations = append(p.conversations, id)
	}
	c := conversation{id, members[0]}
	r.all = append(r.all, c)
	return c, nil
}

// settleIn makes the people, their conversations, and their devices.
func (r *run) settleIn(ctx context.Context) error {
	n := r.options.people
	for range n {
		r.person()
	}
	if _, err := r.found(ctx, "group", r.people); err != nil {
		return err
	}
	for members := range slices.Chunk(r.people, groupSize) {
		if _, err := r.found(ctx, "group", members); err != nil {
			return err
		}
	}
	groups := r.all[1:]
	for i, p := range r.people {
		p.elsewhere = groups[(i/groupSize+1)%len(groups)].id
	}
	for pair := range slices.Chunk(r.people, 2) {
		if len(pair) < 2 {
			continue
		}
		if _, err := r.found(ctx, "direct", pair); err != nil {
			return err
		}
	}
	// Half of the people come to a group and leave it; its owner is none of them.
	guests := r.people[n/2:]
	coming, err := r.found(ctx, "group", append([]*person{r.people[0]}, guests...))
	if err != nil {
		return err
	}
	for _, p := range guests {
		r.guests = append(r.guests, guest{p.name, coming})
	}
	for _, p := range r.people {
		for range r.options.devices {
			r.device(p, r.usual())
		}
	}
	return nil
}

// device gives a person another device.
func (r *run) device(p *person, h habits) {
	n := len(r.devices)
	r.devices = append(r.devices, &device{run: r, person: p, name: fmt.Sprintf("%s.%d", p.name, n), asking: make(chan struct{}, askingMax),
		habits: h, random: r.random(100 + n)})
}

// conversation is one, and who may always read it.
type conversation struct {
	id    string
	owner *person
}
