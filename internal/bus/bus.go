package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Bounds of the bus. A hint that does not fit is lost, and the log in SQL makes it good.
const (
	// PayloadBytesMax bounds one message on a server of ours; an outside NATS has its own max_payload.
	PayloadBytesMax = 4 << 20

	queueMessagesMax   = 64 << 10 // told, not yet written
	queueBytesMax      = 32 << 20
	pendingMessagesMax = 64 << 10 // heard, not yet handled, for each subscription
	pendingBytesMax    = 32 << 20
)

const (
	connectTimeout = 2 * time.Second // one attempt to reach a server
	writeTimeout   = 5 * time.Second // one write to a stalled server, before the connection is given up
	flushTimeout   = 2 * time.Second // what Close waits for the last messages
	startTimeout   = 10 * time.Second
	pingInterval   = 5 * time.Second // with two unanswered pings, a vanished server or node is noticed in 15 s
	pingsOutMax    = 2
	routePoll      = 500 * time.Millisecond // how often routes are looked at; the server has no hook for them
)

// Errors of [Bus.Tell] and [Bus.Hear].
var (
	ErrClosed  = errors.New("bus: closed")
	ErrFull    = errors.New("bus: queue full, message dropped")
	ErrSubject = errors.New("bus: not a subject to tell to")
	ErrPayload = errors.New("bus: message too large")
)

// Options say which NATS the bus uses. The zero value is one in this process, without a port.
type Options struct {
	// URL of an outside NATS, or several separated by commas. Excludes the cluster settings.
	URL string

	// ClusterListen is the address of the route port, as host:port or nats://user:password@host:port. If it
	// has a user and password, other nodes must show them in their ClusterRoutes.
	ClusterListen string

	// ClusterRoutes are nats://[user:password@]host:port of other nodes. One that answers is enough: it
	// tells of the others. A node's own address among them does no harm.
	ClusterRoutes []string

	// NoEcho keeps what this bus tells from its own subscriptions: for one who has already told those in
	// the process.
	NoEcho bool

	// Log gets what the server and connection report. Nil discards it.
	Log *slog.Logger

	beatEvery time.Duration // for tests; 0 is the constant
}

// A Message is what was told. Its data belongs to the receiver.
type Message struct {
	Subject string
	Data    []byte
}

// Stats are counts since Open, but for Queued.
type Stats struct {
	Told    uint64 // handed to the server
	Lost    uint64 // accepted or refused by Tell, and not handed to the server
	Dropped uint64 // arrived for a subscription that was too slow
	Queued  int    // waits now to be handed to the server
}

// A Bus is one connection to NATS, and the server behind it when that is ours. It may be used by any number of
// goroutines.
type Bus struct {
	log    *slog.Logger
	server *server.Server // nil with an outside NATS
	conn   *nats.Conn

	told, lost, dropped atomic.Uint64
	wake                chan struct{} // holds one: the queue is no longer empty, or the bus is closing
	healed              chan struct{} // holds one: the connection came back
	stop                chan struct{}
	running             sync.WaitGroup // write, watch, tend
	handlers            sync.WaitGroup // the goroutines of subscriptions, and of answers

	// No two of these locks are held together, but that of exchanges before queueMu; and no call into the connection is
	// made under those two: it may be stuck in a write, and Tell must not be.
	queueMu     sync.Mutex
	queue       []outgoing
	queuedBytes int
	closed      bool

	hooksMu sync.Mutex
	hooks   []func()

	subsMu     sync.Mutex
	subs       map[*Subscription]struct{}
	subsClosed bool

	beatEvery time.Duration
	exchanges exchanges
}

// Open starts the server that o asks for, and connects to it.
//
// An outside NATS need not answer yet: the bus comes up disconnected and goes on trying. Errors are a contradictory
// or unreadable option, a route port that cannot be opened, and a ctx that ended first.
func Open(ctx context.Context, o Options) (*Bus, error) {
	b := &Bus{
		log:    o.Log,
		wake:   make(chan struct{}, 1),
		healed: make(chan struct{}, 1),
		stop:   make(chan struct{}),
		subs:   map[*Subscription]struct{}{},

		beatEvery: cmp.Or(o.beatEvery, beatEvery),
		exchanges: exchanges{inbox: nats.NewInbox(), asked: map[string]*asked{}, answered: map[string]*answered{}},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if o.URL != "" && (o.ClusterListen != "" || len(o.ClusterRoutes) > 0) {
		return nil, errors.New("bus: an outside NATS and a cluster of our own exclude each other")
	}
	if o.URL == "" {
		srv, err := startServer(ctx, o, b.log)
		if err != nil {
			return nil, err
		}
		b.server = srv
	}
	if err := b.connect(o); err != nil {
		b.stopServer()
		return nil, err
	}
	if _, err := b.subscribe(pendingMessagesMax, pendingBytesMax, b.exchanges.inbox+".*", b.answerCame); err != nil {
		b.conn.Close()
		b.stopServer()
		return nil, err
	}
	b.running.Go(b.write)
	b.running.Go(b.watch)
	b.running.Go(b.tend)
	return b, nil
}

func (b *Bus) connect(o Options) error {
	options := []nats.Option{
		nats.Name("parley"),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(),
		// What could not be written when the connection broke is lost, not sent late: readers catch up
		// from the log as soon as it is back.
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(500*time.Millisecond, 500*time.Millisecond),
		nats.Timeout(connectTimeout),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOutMax),
		nats.ConnectHandler(b.connected),
		nats.ReconnectHandler(b.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("bus: disconnected from nats", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				b.log.Warn("bus: subscription", "subject", sub.Subject, "err", err)
				return
			}
			b.log.Warn("bus: connection", "err", err)
		}),
	}
	if o.NoEcho {
		options = append(options, nats.NoEcho())
	}
	if b.server != nil {
		options = append(options, nats.InProcessServer(b.server))
	}
	if o.URL != "" {
		for part := range strings.SplitSeq(o.URL, ",") {
			if _, err := parseURL(strings.TrimSpace(part), "nats", "tls", "ws", "wss"); err != nil {
				return fmt.Errorf("bus: address of nats: %w", err)
			}
		}
	}
	conn, err := nats.Connect(o.URL, options...)
	if err != nil {
		return fmt.Errorf("bus: connect: %w", err)
	}
	b.conn = conn
	return nil
}

func (b *Bus) connected(*nats.Conn) {
	b.log.Debug("bus: connected to nats")
	select {
	case b.healed <- struct{}{}:
	default:
	}
}

// Tell publishes data on subject, without waiting: the message is queued and written by the bus.
//
// The data must not be changed afterwards. Nil says that the message was queued, not that anyone will hear it.
// Errors: [ErrFull], [ErrSubject] (empty, or with a wildcard or space), [ErrPayload], [ErrClosed]. A caller that
// has committed what he tells of may ignore them: the loss is counted.
func (b *Bus) Tell(subject string, data []byte) error {
	return b.post(outgoing{Message: Message{subject, data}})
}

// outgoing is a message in the queue, with the subject to reply to if it has one.
type outgoing struct {
	Message
	reply string
}

// post queues m.
func (b *Bus) post(m outgoing) error {
	if err := b.enqueue(m); err != nil {
		b.lost.Add(1)
		return err
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

func (b *Bus) enqueue(m outgoing) error {
	if !tellable(m.Subject) {
		return ErrSubject
	}
	if len(m.Data) > PayloadBytesMax {
		return ErrPayload
	}
	b.queueMu.Lock()
	defer b.queueMu.Unlock()
	if b.closed {
		return ErrClosed
	}
	if len(b.queue) >= queueMessagesMax || b.queuedBytes+len(m.Data) > queueBytesMax {
		return ErrFull
	}
	b.queue = append(b.queue, m)
	b.queuedBytes += len(m.Data)
	return nil
}

// tellable reports whether subject consists of non-empty tokens without wildcards or spaces (NATS client protocol,
// "Subject names").
func tellable(subject string) bool {
	return subject != "" && !strings.ContainsAny(subject, " \t\r\n\x00*>") &&
		subject[0] != '.' && subject[len(subject)-1] != '.' && !strings.Contains(subject, "..")
}

// write hands what was queued to the connection, so that a stalled server holds up nobody who tells.
func (b *Bus) write() {
	var batch []outgoing
	for range b.wake {
		b.queueMu.Lock()
		batch, b.queue = b.queue, batch[:0]
		b.queuedBytes = 0
		closed := b.closed
		b.queueMu.Unlock()

		for _, m := range batch {
			if err := b.conn.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: m.reply, Data: m.Data}); err != nil {
				b.lost.Add(1)
				continue
			}
			b.told.Add(1)
		}
		clear(batch)
		if closed {
			return
		}
	}
}

// Healthy reports whether the bus is connected to its server. A lone node of a cluster is healthy; see [Bus.Routes].
func (b *Bus) Healthy() bool { return b.conn.IsConnected() }

// Routes counts the other nodes that this node's own server is connected to.
func (b *Bus) Routes() int {
	if b.server == nil {
		return 0
	}
	return b.server.NumRemotes()
}

// ClusterAddr is the address of this node's route port, as host:port; empty when it has none.
func (b *Bus) ClusterAddr() string {
	if b.server == nil || b.server.ClusterAddr() == nil {
		return ""
	}
	return b.server.ClusterAddr().String()
}

// Stats are for metrics.
func (b *Bus) Stats() Stats {
	s := Stats{Told: b.told.Load(), Lost: b.lost.Load(), Dropped: b.dropped.Load()}
	b.queueMu.Lock()
	s.Queued = len(b.queue)
	b.queueMu.Unlock()

	b.subsMu.Lock()
	defer b.subsMu.Unlock()
	for sub := range b.subs {
		s.Dropped += sub.Dropped()
	}
	return s
}

// OnReconnect has f called whenever messages may have been missed and come again: the connection was made anew, or
// another node (back or new) has connected to our server. Calls come one at a time, from a goroutine of the bus,
// somewhat after the fact; those that fall together are one. Close waits for a call under way, so f must not call
// Close, and should only wake whoever is to read again.
func (b *Bus) OnReconnect(f func()) {
	b.hooksMu.Lock()
	defer b.hooksMu.Unlock()
	b.hooks = append(b.hooks, f)
}

// watch calls the hooks.
func (b *Bus) watch() {
	var tick <-chan time.Time
	if b.server != nil && b.server.ClusterAddr() != nil {
		ticker := time.NewTicker(routePoll)
		defer ticker.Stop()
		tick = ticker.C
	}
	routes := map[uint64]bool{}
	for {
		select {
		case <-b.stop:
			return
		case <-b.healed:
		case <-tick:
			var fresh bool
			if routes, fresh = b.newRoutes(routes); !fresh {
				continue
			}
		}
		b.hooksMu.Lock()
		hooks := b.hooks
		b.hooksMu.Unlock()
		for _, f := range hooks {
			f()
		}
	}
}

// newRoutes returns the routes there are, and whether one of them was not among those before. A route that broke and
// was made again has another number.
func (b *Bus) newRoutes(before map[uint64]bool) (now map[uint64]bool, fresh bool) {
	z, err := b.server.Routez(nil)
	if err != nil {
		return before, false // The server is shutting down.
	}
	now = make(map[uint64]bool, len(z.Routes))
	for _, r := range z.Routes {
		now[r.Rid] = true
		fresh = fresh || !before[r.Rid]
	}
	return now, fresh
}

// Close writes what was told before it (for at most a few seconds), ends all questions and subscriptions and waits for
// their handlers, and shuts the server down. It must not be called from a handler. A second call does nothing.
func (b *Bus) Close() {
	b.queueMu.Lock()
	again := b.closed
	b.closed = true
	b.queueMu.Unlock()
	if again {
		return
	}

	close(b.stop)
	b.endExchanges()
	select {
	case b.wake <- struct{}{}:
	default: // The writer has a wake-up to come, and will see that the bus is closed.
	}
	b.running.Wait()
	if b.conn.IsConnected() {
		if err := b.conn.FlushTimeout(flushTimeout); err != nil {
			b.log.Warn("bus: the last messages may be lost", "err", err)
		}
	}
	b.subsMu.Lock()
	b.subsClosed = true
	b.subsMu.Unlock()
	b.conn.Close()
	b.handlers.Wait()
	b.stopServer()
}
