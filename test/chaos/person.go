package main

import (
	"fmt"
	"sync"

	"parley/test/chaos/history"
)

// person is a user.
type person struct {
	name          string
	conversations []string // that he is in, or was before he was removed
	elsewhere     string   // one that he was never in

	mu     sync.Mutex
	own    []target         // messages of his that were acknowledged, the last ones
	others []target         // others' messages that he saw last
	tops   map[string]int64 // the highest seq that he saw, by conversation
	made   int              // names given
}

// target is a message to do something to.
type target struct {
	conversation, id, name string
	seq                    int64
	draft                  *draft // of one's own, to send it again
}

// targetsKept is how many messages a person remembers.
const targetsKept = 100

// draft is a message that is to be sent until its outcome is known.
type draft struct {
	conversation, user string
	name               string
	clientMessageID    string // empty: it is not sent again
}

// draft makes a new one. Every tenth has no client_message_id.
func (p *person) draft(conversation string) *draft {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	d := &draft{conversation: conversation, user: p.name, name: fmt.Sprintf("%s-%d", p.name, p.made)}
	if p.made%10 != 0 {
		d.clientMessageID = d.name
	}
	return d
}

// line is what the record says of an attempt to send the draft.
func (d *draft) line() history.Line {
	return history.Line{Kind: history.Send, User: d.user, Conversation: d.conversation, Name: d.name, ClientMessageID: d.clientMessageID}
}

// body is the draft for the server, the same over both faces: a repetition is compared with the first as it was received.
func (d *draft) body() map[string]any {
	body := map[string]any{"content": text(d.name, 0)}
	if d.clientMessageID != "" {
		body["client_message_id"] = d.clientMessageID
	}
	return body
}

// sent remembers an acknowledged message of the person's own.
func (p *person) sent(d *draft, row history.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = append(p.own, target{conversation: d.conversation, id: row.ID, name: d.name, seq: row.Seq, draft: d})
	p.own = p.own[max(0, len(p.own)-targetsKept):]
}

// saw remembers a message that came.
func (p *person) saw(row history.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tops[row.Conversation] = max(p.tops[row.Conversation], row.Seq)
	if row.Sender != p.name && row.Name != "" {
		p.others = append(p.others, target{conversation: row.Conversation, id: row.ID, name: row.Name, seq: row.Seq})
		p.others = p.others[max(0, len(p.others)-targetsKept):]
	}
}

// pick chooses a message by choose, which returns a number below its argument: the person's own, or another's.
func (p *person) pick(own bool, choose func(int) int) (t target, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.others
	if own {
		from = p.own
	}
	if len(from) == 0 {
		return t, false
	}
	return from[choose(len(from))], true
}

func (p *person) top(conversation string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tops[conversation]
}
