package chat

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/workflow"
)

// commitTimeout bounds one transaction of sends.
const commitTimeout = 5 * time.Second

// Options are chat's bounds and policies. A zero bound takes its default.
type Options struct {
	BatchMax             int           // sends, or marks of receipts, committed together; 256
	QueueMax             int           // sends that may wait, and reads; 8192
	QueueTimeMax         time.Duration // how long one may wait; 5 s
	Writers              int           // batches committed at a time; 1 on SQLite, 4 on PostgreSQL
	ContentBytesMax      int           // 32 KiB
	MetadataBytesMax     int           // 8 KiB
	MembersPerRequestMax int           // 1000
	ReplayChangesMax     int           // changes replayed to a client that comes back; 1000
	ReplayBytesMax       int           // 512 KiB
	PollEvery            time.Duration // how often the heads of the log are compared; 2 s
	BeatEvery            time.Duration // how often a node shows that it lives; 5 s
	DeliveriesEvery      time.Duration // how often what was delivered is written; 1 s
	DeliveriesMax        int           // marks of what was delivered that may wait for it; 16384

	// Judge says whether a text is to be flagged, before it is stored; nil: nothing is. When it fails, the text goes
	// through unflagged, or with ModerationFailClosed is refused.
	Judge                func(ctx context.Context, text string) (flagged bool, err error)
	ModerationFailClosed bool
	// Shared says that other nodes or programs may be listening on the bus. Then the lanes of the Feed that nobody keeps
	// fall asleep.
	Shared     bool
	SleepAfter time.Duration // how long nobody must have wanted a lane for that; 1 min
}

func (o *Options) defaults(d sqldb.Dialect) {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.BatchMax, 256)
	set(&o.QueueMax, 8192)
	if d == sqldb.Postgres {
		set(&o.Writers, 4)
	}
	set(&o.Writers, 1)
	set(&o.ContentBytesMax, 32<<10)
	set(&o.MetadataBytesMax, 8<<10)
	set(&o.MembersPerRequestMax, 1000)
	set(&o.ReplayChangesMax, 1000)
	set(&o.ReplayBytesMax, 512<<10)
	set(&o.DeliveriesMax, 16384)
	if o.QueueTimeMax == 0 {
		o.QueueTimeMax = 5 * time.Second
	}
	if o.PollEvery == 0 {
		o.PollEvery = 2 * time.Second
	}
	if o.BeatEvery == 0 {
		o.BeatEvery = 5 * time.Second
	}
	if o.DeliveriesEvery == 0 {
		o.DeliveriesEvery = time.Second
	}
	if o.SleepAfter == 0 {
		o.SleepAfter = time.Minute
	}
	if o.Judge == nil {
		o.Judge = func(context.Context, string) (bool, error) { return false, nil }
	}
}

// Chat is the one owner of conversations and messages on a node.
type Chat struct {
	// Feed is the log as it grows.
	Feed *Feed

	db         *sqldb.DB
	bus        *bus.Bus
	ensure     func(context.Context, *sqldb.Tx, []id.User) error
	log        *slog.Logger
	now        func() time.Time
	o          Options
	lost       func()
	runs       runs
	requestKey []byte
	flow       *workflow.Flow[*batch]
	sends      *sqldb.Batcher[*sending]
	reads      *sqldb.Batcher[*marking]
	deliveries *deliveries
	access     access
	reread     chan struct{}
	metrics    struct {
		owed, losses prometheus.Counter
		followers    followersMetrics
	}

	followersMu sync.Mutex // over changes of followers
	followers   atomic.Pointer[[]*following]
}

// Parts are what a Chat works with.
type Parts struct {
	DB  *sqldb.DB // migrated
	Bus *bus.Bus
	// EnsureUsers makes the users among ids that are not known yet; ids are sorted.
	EnsureUsers func(ctx context.Context, tx *sqldb.Tx, ids []id.User) error
	Log         *slog.Logger
	Now         func() time.Time
	Metrics     prometheus.Registerer
	// Handle is called with every commit, in the order of its bucket's positions, from the bucket's lane: for
	// one bucket one call at a time. It must not wait.
	Handle func(Commit)
	// Present tells whether a user is here: whether Handle is to be called with what becomes of his memberships in a
	// bucket that nobody keeps. It is true from before his memberships are read. It must not wait. Nil: nobody is.
	Present func(id.User) bool
	// Lost is called when the database turns out to have lost what was handled before: the Feed goes on from where the
	// database is, and nobody's place can be relied on. It returns when nobody does any more.
	Lost func()
}

// New reads what the database says of itself. Run starts the work.
func New(ctx context.Context, p Parts, o Options) (*Chat, error) {
	o.defaults(p.DB.Dialect())
	meta, err := schema.ReadMeta(ctx, p.DB)
	if err != nil {
		return nil, fmt.Errorf("chat: %w", err)
	}
	c := &Chat{
		db: p.DB, bus: p.Bus, ensure: p.EnsureUsers, log: p.Log, now: p.Now, o: o,
		lost: p.Lost, runs: newRuns(), requestKey: []byte(meta.RequestKey),
		access: access{seen: map[memberKey]struct{}{}}, reread: make(chan struct{}, 1),
		Feed: &Feed{log: p.Log, present: p.Present, sleepAfter: o.SleepAfter, roused: make(chan struct{}, 1)},
	}
	c.Feed.here = c.runs.here
	c.followers.Store(&[]*following{})
	c.Feed.handle = func(commit Commit) {
		if p.Handle != nil {
			p.Handle(commit)
		}
		c.wakeFollowers(commit)
	}
	c.Feed.listen = c.listen
	c.Feed.skipped = func(b id.Bucket, head int64) { c.wakeFollowers(Commit{Bucket: b, Pos: head}) }
	if c.Feed.present == nil {
		c.Feed.present = func(id.User) bool { return false }
	}
	if c.lost == nil {
		c.lost = func() {}
	}
	c.flow = c.defineSend(workflow.NewMetrics(p.Metrics))
	c.reads = sqldb.NewBatcher(sqldb.BatcherOptions[*marking]{
		Writers: o.Writers, BatchMax: o.BatchMax, QueueMax: o.QueueMax, WaitMax: o.QueueTimeMax,
		Commit: c.commitReads,
		Expire: func(m *marking) { m.done(Receipt{}, errTooMuch) },
	})
	c.deliveries = &deliveries{
		every: o.DeliveriesEvery, most: o.DeliveriesMax, batchMax: o.BatchMax, commit: c.commitMarks, log: p.Log,
		waiting: map[mark]int64{}, soon: make(chan struct{}, 1),
	}
	c.sends = sqldb.NewBatcher(sqldb.BatcherOptions[*sending]{
		Writers: o.Writers, BatchMax: o.BatchMax, QueueMax: o.QueueMax, WaitMax: o.QueueTimeMax,
		Commit: c.commitSends,
		Expire: func(s *sending) { s.answer(nil, errTooMuch) },
	})
	c.metrics.owed = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_chat_messages_total", Help: "Messages committed by this node."})
	c.metrics.losses = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_chat_losses_total", Help: "How often the database had lost what it had committed."})
	c.metrics.followers = newFollowersMetrics(p.Metrics)
	p.Metrics.MustRegister(c.metrics.owed, c.metrics.losses,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_chat_sends_waiting", Help: "Sends that wait for their batch."}, func() float64 { return float64(c.sends.Waiting()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_chat_reads_waiting", Help: "Read marks that wait for their batch."}, func() float64 { return float64(c.reads.Waiting()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_chat_deliveries_waiting", Help: "Delivered marks that wait to be written."}, func() float64 { return float64(c.deliveries.depth()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_chat_deliveries_dropped_total", Help: "Delivered marks that were refused because too many waited."}, func() float64 { return float64(c.deliveries.dropped.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_chat_log_fills_total", Help: "How often the log was read because what was told did not arrive."}, func() float64 { return float64(c.Feed.Fills()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_chat_lanes_awake", Help: "Buckets of the log that this node listens to, of 256."}, func() float64 { return float64(c.Feed.awakened()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_chat_hints_heard_total", Help: "Commits that other nodes told of."}, func() float64 { return float64(c.Feed.heard.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_chat_commits_ignored_total", Help: "Commits, of this node and others, in buckets that nobody here wants."}, func() float64 { return float64(c.Feed.ignored.Load()) }))
	return c, nil
}

// readAgain has the Feed compare itself with the log at once.
func (c *Chat) readAgain() {
	select {
	case c.reread <- struct{}{}:
	default:
	}
}

// Start brings the Feed to the head of the log; from here on everything that is committed is handled.
// It is called once, before Run.
func (c *Chat) Start(ctx context.Context) error {
	if err := c.beginRun(ctx); err != nil {
		return err
	}
	// Hear first, read afterwards: what is committed between the two is held by the lanes.
	for b := range c.Feed.lanes {
		c.Feed.lanes[b].order.applied = -1
	}
	if c.o.Shared {
		if _, err := c.bus.Hear(membersSubject, c.Feed.hearMembers); err != nil {
			return fmt.Errorf("chat: %w", err)
		}
		c.bus.OnReconnect(c.readAgain)
	}
	began := time.Now()
	heads, err := c.readHeads(ctx)
	if err != nil {
		return fmt.Errorf("chat: start: %w", err)
	}
	state := awake
	if c.o.Shared {
		state = asleep
	}
	c.Feed.start(heads, state)
	c.Feed.complete.Store(began.UnixMilli())
	return nil
}

// Run commits sends and receipts and keeps the Feed complete until ctx ends; then it commits what was accepted, ends this
// node's run and returns.
func (c *Chat) Run(ctx context.Context) error {
	err := c.work(ctx)
	if failed := c.endRun(context.WithoutCancel(ctx)); failed != nil {
		c.log.Warn("this node's run is left to be ended by others", "err", failed)
	}
	return err
}

// work is Run without its end, which a node that is killed does not come to.
func (c *Chat) work(ctx context.Context) error {
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		c.runReceipts(ctx)
	}()
	after, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends when what was accepted is committed
	var rest sync.WaitGroup
	rest.Go(func() { c.runFeed(after) })
	rest.Go(func() { c.keepRun(after) })
	rest.Go(func() { c.runWaker(after) })
	err := c.sends.Run(ctx)
	<-accepted
	stop()
	rest.Wait()
	c.Feed.stop()
	return err
}
