package chat

import (
	"sync"

	"parley/internal/id"
)

// accessMax bounds the memory of memberships: about 200 bytes for each.
const accessMax = 100_000

// access remembers memberships that were seen, to spare a query for each send. It is only ever a reason
// to go on, never to refuse: the transaction decides again.
type access struct {
	mu   sync.Mutex
	seen map[memberKey]struct{}
}

func (a *access) has(cid id.Conversation, u id.User) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.seen[memberKey{cid, u}]
	return ok
}

func (a *access) add(cid id.Conversation, u id.User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) >= accessMax {
		for k := range a.seen { // any one
			delete(a.seen, k)
			break
		}
	}
	a.seen[memberKey{cid, u}] = struct{}{}
}

func (a *access) drop(cid id.Conversation, u id.User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seen, memberKey{cid, u})
}
