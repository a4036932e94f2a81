package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// person is a user who comes and goes with one connection at a time, sends, and checks everything that arrives.
type person struct {
	soak   *soak
	name   string
	number int
	random *rand.Rand
	views  map[string]*view // by conversation
	groups []string         // their ids

	cursor  string
	sent    int    // messages, the pending one included
	pending *draft // not acknowledged yet: sent again after a break
}

// draft is a message that is to be sent until it is acknowledged.
type draft struct{ conversation, id, content string }

// view is what a person has of a conversation.
type view struct {
	last       int64         // the seq up to which everything has come
	repeatable int64         // up to here a message may come again: it is what had come when the last connection ended
	from       map[int]int64 // by sender, the number of his last message
}

// A conversation's messages are numbered by their senders, too.
var (
	errLost  = errors.New("a message was lost")
	errTwice = errors.New("a message came twice")
	errOrder = errors.New("a sender's messages are out of order")
)

// see checks one message.
func (v *view) see(seq int64, sender int, number int64) error {
	switch {
	case seq <= v.repeatable && seq <= v.last:
		return nil
	case seq <= v.last:
		return fmt.Errorf("%w: seq %d after %d", errTwice, seq, v.last)
	case seq > v.last+1:
		return fmt.Errorf("%w: seq %d after %d", errLost, seq, v.last)
	case number != v.from[sender]+1:
		return fmt.Errorf("%w: number %d of sender %d after %d", errOrder, number, sender, v.from[sender])
	}
	v.last, v.from[sender] = seq, number
	return nil
}

// live comes and goes until ctx ends; then it stays, or comes back, until leave is closed.
func (p *person) live(ctx context.Context, leave <-chan struct{}) {
	for {
		s, err := p.arrive()
		if err != nil {
			p.soak.troubled(fmt.Errorf("%s cannot connect: %w", p.name, err))
			select {
			case <-leave:
				return
			case <-time.After(time.Second):
			}
			continue
		}
		gone := s.stay(ctx, leave)
		for _, v := range p.views {
			v.repeatable = v.last
		}
		if gone {
			return
		}
		awayMax := p.soak.awayMax
		if p.random.IntN(10) == 0 {
			awayMax = p.soak.longAwayMax
		}
		away := time.Duration(p.random.Int64N(int64(awayMax)))
		select {
		case <-ctx.Done():
		case <-time.After(away):
		}
	}
}

// session is a person's connection.
type session struct {
	*person
	link    link
	ended   chan struct{} // closed when the reader has ended
	failed  error         // of the reader
	acks    chan []byte
	syncing bool // pages are fetched; what is live meanwhile is held
	held    [][]byte

	mu      sync.Mutex
	closing bool
}

// arrive connects in one of the ways there are, and signs in with the cursor.
func (p *person) arrive() (*session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	defer cancel()
	var l link
	var err error
	kind := "websocket"
	switch n := p.random.IntN(100); {
	case n < 80:
		l, err = dialWebSocket(ctx, p.soak.parley.Address)
	case n < 95:
		kind = "polling, then websocket"
		l, err = dialPolling(context.Background(), p.soak.parley.Address, time.Duration(1+p.random.Int64N(int64(2*time.Second))))
	default:
		kind = "polling"
		l, err = dialPolling(context.Background(), p.soak.parley.Address, 0)
	}
	if err != nil {
		return nil, err
	}
	p.soak.count(kind)
	s := &session{person: p, link: l, ended: make(chan struct{}), acks: make(chan []byte, 1)}
	auth, err := json.Marshal(map[string]string{"token": p.soak.parley.Token(p.name), "cursor": p.cursor})
	if err == nil {
		err = l.Write("40" + string(auth))
	}
	if err != nil {
		l.end(byFIN)
		return nil, err
	}
	go s.read()
	return s, nil
}

// stay sends now and then until it is time to go, and reports whether it is for ever.
func (s *session) stay(ctx context.Context, leave <-chan struct{}) (gone bool) {
	defer func() { <-s.ended }()
	length := s.soak.stayMin + time.Duration(s.random.Int64N(int64(s.soak.stayMax-s.soak.stayMin)))
	until := time.NewTimer(length)
	defer until.Stop()
	next := time.NewTimer(s.pause())
	defer next.Stop()
	if s.pending != nil {
		s.post()
	}
	done := ctx.Done()
	for {
		select {
		case <-s.ended:
			s.link.end(byFIN)
			s.soak.troubled(fmt.Errorf("%s: the server ended a connection: %w", s.name, s.failed))
			return false
		case <-leave:
			s.part(cleanly)
			return true
		case <-done: // Nobody goes any more, and nothing new is sent.
			done = nil
			until.Stop()
		case <-until.C:
			if ctx.Err() == nil {
				ways := []string{cleanly, engineEnd, byFIN, byRST, vanished, frozen}
				s.part(ways[s.random.IntN(len(ways))])
				return false
			}
		case ack := <-s.acks:
			s.acknowledged(ack)
		case <-next.C:
			next.Reset(s.pause())
			if s.pending == nil && ctx.Err() == nil && s.soak.sending.Load() {
				s.draft()
				s.post()
			}
		}
	}
}

// pause is the time to the next message of this person.
func (s *session) pause() time.Duration {
	mean := time.Second * time.Duration(s.soak.clients) / time.Duration(s.soak.rate)
	return mean/2 + time.Duration(s.random.Int64N(int64(mean)))
}

// part ends the connection and waits until nothing more of it is read.
func (s *session) part(how string) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.soak.count(s.link.end(how))
	if how == frozen {
		s.freeze()
	}
}

func (s *session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// draft makes the next message.
func (s *session) draft() {
	s.sent++
	conversation := s.groups[s.sent%len(s.groups)]
	number := (s.sent + len(s.groups) - 1) / len(s.groups) // in this conversation
	s.pending = &draft{conversation: conversation, id: s.name + "-" + strconv.Itoa(s.sent),
		content: fmt.Sprintf("%d %d the quick brown fox jumps over the lazy dog, and then writes to the others about it", s.number, number)}
}

func (s *session) post() {
	_ = s.link.Write("42", strconv.Itoa(s.sent), `["send-message",{"conversation_id":"`, s.pending.conversation, `","content":"`, s.pending.content,
		`","client_message_id":"`, s.pending.id, `"}]`) // If it fails the reader ends, and it is sent again.
}

var okMember = []byte(`"ok":true`)

// acknowledged handles the answer to the pending message.
func (s *session) acknowledged(ack []byte) {
	id, body, _ := bytes.Cut(ack[2:], []byte("["))
	if string(id) != strconv.Itoa(s.sent) || s.pending == nil {
		return
	}
	seq, found := number(body, `"seq":`)
	if !bytes.Contains(body, okMember) || !found {
		s.soak.wrong(fmt.Errorf("%s: a send was refused: %.200s", s.name, body))
		return
	}
	s.soak.acknowledged(s.pending.conversation, seq)
	s.pending = nil
}

// read handles packets until the connection ends.
func (s *session) read() {
	defer close(s.ended)
	for {
		packet, err := s.link.Read()
		if err != nil {
			s.failed = err
			return
		}
		if s.isClosing() {
			return
		}
		if err := s.packet(packet); err != nil {
			s.failed = err
			return
		}
	}
}

// freeze waits for the reader, which stops at the next packet, at the latest the server's ping.
func (s *session) freeze() {
	if ws, ok := s.link.(wsLink); ok {
		_ = ws.TCP.SetReadDeadline(time.Unix(1, 0)) // It wakes the reader.
	}
	if l, ok := s.link.(*pollLink); ok {
		l.cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ws != nil {
			_ = l.ws.TCP.SetReadDeadline(time.Unix(1, 0)) // As above.
		}
	}
}

var (
	newMessage    = []byte(`42["new-message",`)
	cursorEvent   = []byte(`42["cursor",`)
	authenticated = []byte(`42["authenticated",`)
	syncRequired  = []byte(`42["sync_required",`)
	syncAnswer    = []byte("43" + syncID + "[")
)

// syncID is the id of the acknowledgement of a page, beyond all those of sends.
const syncID = "999999999"

// packet handles one Engine.IO packet.
func (s *session) packet(p []byte) error {
	switch {
	case bytes.HasPrefix(p, newMessage):
		if s.syncing {
			s.held = append(s.held, bytes.Clone(p))
			return nil
		}
		s.message(p)
	case len(p) == 1 && p[0] == '2':
		return s.link.Write("3")
	case bytes.HasPrefix(p, cursorEvent), bytes.HasPrefix(p, authenticated):
		if !s.syncing {
			s.cursor = text(p, `"cursor":"`)
		}
	case bytes.HasPrefix(p, syncRequired):
		if bytes.Contains(p, []byte(`"reset":true`)) {
			s.soak.wrong(fmt.Errorf("%s was told to start over: %s", s.name, p))
		}
		s.syncing = true
		s.soak.count("had to sync")
		return s.page(text(p, `"cursor":"`))
	case bytes.HasPrefix(p, syncAnswer):
		return s.paged(p[len(syncAnswer)-1:])
	case bytes.HasPrefix(p, []byte("43")):
		select {
		case s.acks <- bytes.Clone(p):
		case <-time.After(openMax):
			return errors.New("nobody takes the acknowledgement")
		}
	case bytes.HasPrefix(p, []byte(`42["error"`)), bytes.HasPrefix(p, []byte("44")), bytes.HasPrefix(p, []byte("41")), len(p) == 1 && p[0] == '1':
		return fmt.Errorf("the server says %.200s", p)
	}
	return nil // The handshake, noops, and events that are not looked at.
}

// message checks one new-message.
func (s *session) message(p []byte) {
	seq, found := number(p, `"seq":`)
	if v := s.views[text(p, `"conversation_id":"`)]; v != nil && found {
		s.checked(v, seq, text(p, `"content":"`))
		return
	}
	s.soak.wrong(fmt.Errorf("%s got what it should not: %.300s", s.name, p))
}

// checked checks a message, however it came.
func (s *session) checked(v *view, seq int64, content string) {
	s.soak.deliveries.Add(1)
	var sender int
	var count int64
	if _, err := fmt.Sscanf(content, "%d %d", &sender, &count); err != nil {
		s.soak.wrong(fmt.Errorf("%s got the text %.50q", s.name, content))
		return
	}
	if err := v.see(seq, sender, count); err != nil {
		s.soak.wrong(fmt.Errorf("%s: %w", s.name, err))
		v.last = max(v.last, seq) // One complaint is enough.
		v.from[sender] = max(v.from[sender], count)
	}
}

// page asks for a page of what was missed.
func (s *session) page(cursor string) error {
	return s.link.Write("42", syncID, `["sync",{"cursor":"`, cursor, `","limit":500}]`)
}

// paged handles a page, and asks for the next or lets in what was held.
func (s *session) paged(answer []byte) error {
	var pages []struct {
		OK      bool `json:"ok"`
		Changes []struct {
			Kind    string `json:"kind"`
			Message struct {
				Conversation string `json:"conversation_id"`
				Content      string `json:"content"`
				Seq          int64  `json:"seq"`
			} `json:"message"`
		} `json:"changes"`
		Cursor  string `json:"cursor"`
		HasMore bool   `json:"has_more"`
		Reset   bool   `json:"reset"`
	}
	if err := json.Unmarshal(answer, &pages); err != nil || len(pages) != 1 || !pages[0].OK || pages[0].Reset {
		return fmt.Errorf("sync is answered by %.200s", answer)
	}
	page := pages[0]
	for _, change := range page.Changes {
		if v := s.views[change.Message.Conversation]; v != nil && change.Kind == "message" {
			s.checked(v, change.Message.Seq, change.Message.Content)
		}
	}
	s.cursor = page.Cursor
	if page.HasMore {
		return s.page(page.Cursor)
	}
	s.syncing = false
	for _, v := range s.views {
		v.repeatable = v.last // What was live meanwhile may be in the pages already.
	}
	for _, p := range s.held {
		s.message(p)
	}
	s.held = nil
	return nil
}

// text returns the string behind a key, which holds nothing that is escaped.
func text(p []byte, key string) string {
	_, rest, _ := bytes.Cut(p, []byte(key))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

// number returns the number behind a key.
func number(p []byte, key string) (int64, bool) {
	_, rest, found := bytes.Cut(p, []byte(key))
	n, digits := int64(0), 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
		digits++
	}
	return n, found && digits > 0
}
