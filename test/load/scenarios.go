package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/test/bench"
)

// sizes are how much load there is. A test uses small ones.
type sizes struct {
	span           time.Duration // of each measurement
	inFlight       []int         // closed-loop senders
	rooms          []rooms
	latency        rooms
	latencyPerSec  int   // deliveries
	offline        []int // members of a group of whom none is connected
	idle           int   // connections
	idlePerGroup   int   // members of each of the idle users' conversations
	idleGroupsEach int   // conversations of each idle user
	idleSettle     time.Duration
	snapshot       time.Duration // how old the old snapshot gets
}

// rooms are groups of a size, everyone online, with some members sending.
type rooms struct{ count, size, senders int }

func (r rooms) String() string {
	noun := "rooms"
	if r.count == 1 {
		noun = "room"
	}
	return fmt.Sprintf("%d %s of %d, %d senders", r.count, noun, r.size, r.senders)
}

// The read buffer of a client that gets many messages, and of one that gets few.
const (
	busyBuffer = 16 << 10
	idleBuffer = 1 << 10
)

// scenario measures one thing on a server of its own, and adds rows to the report.
type scenario struct {
	name string
	run  func(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error
}

var scenarios = []scenario{
	{"sends", sends},
	{"rooms", saturatedRooms},
	{"latency", latency},
	{"growth", growth},
	{"idle", idle},
	{"snapshot", snapshot},
}

// barInFlight is how many sends are under way where the bars of rate and syncs apply.
const barInFlight = 256

// sends measures durable sends by the number under way at once, in groups of two, both online.
func sends(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	most := slices.Max(z.inFlight)
	r := rooms{count: (most + 1) / 2, size: 2}
	c, groups, err := r.fill(ctx, s)
	if err != nil {
		return err
	}
	defer c.close()
	for _, n := range z.inFlight {
		f, err := c.measure(ctx, s, c.clients[:n], groups[:n], r.size, z.span)
		if err != nil {
			return err
		}
		rateBar, syncBar := "", ""
		if n == barInFlight {
			rateBar, syncBar = "≥ 10,000/s", "≤ 0.02"
		}
		what := fmt.Sprintf("durable sends, %d in flight", n)
		add(what, bench.PerSecond(f.sends, f.seconds), rateBar)
		add(what+": time to the ack, p50 / p99", fmt.Sprintf("%s / %s", bench.Millis(f.ack.Quantile(0.5)), bench.Millis(f.ack.Quantile(0.99))), "")
		add(what+": CPU-seconds of server and database for 1,000", fmt.Sprintf("%.3f", costOf(f)), "")
		if f.commits >= 0 {
			add(what+": commits (each one sync) for a send", fmt.Sprintf("%.4f", f.commits/max(1, f.sends)), syncBar)
		}
	}
	return nil
}

// saturatedRooms measures deliveries when senders go as fast as they are acknowledged.
func saturatedRooms(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	bars := map[rooms]string{
		{10, 10, 20}: "≤ 0.11 (1/50 of the tutorial's stack)",
		{1, 100, 20}: "≤ 0.22 (1/200 of the tutorial's stack)",
	}
	for _, r := range z.rooms {
		c, groups, err := r.fill(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		senders, targets := r.sending(c, groups)
		f, err := c.measure(ctx, s, senders, targets, r.size, z.span)
		c.close()
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		add(r.String()+": CPU-seconds of server and database for 1,000 durable sends", fmt.Sprintf("%.3f", costOf(f)), bars[r])
		add(r.String()+": sends", bench.PerSecond(f.sends, f.seconds), "")
		if f.commits >= 0 {
			add(r.String()+": commits (each one sync) for a send", fmt.Sprintf("%.4f", f.commits/max(1, f.sends)), "")
		}
		add(r.String()+": deliveries", bench.PerSecond(f.deliveries, f.seconds), "")
		add(r.String()+": deliveries for a CPU-second, the durable sends included", bench.Grouped(f.deliveries/max(0.01, f.cpuSeconds)),
			"≥ 3 × (rooms of 10) and ≥ 6 × Node's socket.io without a store, not measured in this run")
		add(r.String()+": end to end, saturated, p50 / p99", fmt.Sprintf("%s / %s", bench.Millis(f.endToEnd.Quantile(0.5)), bench.Millis(f.endToEnd.Quantile(0.99))), "")
	}
	return nil
}

// latency measures end-to-end time at a fixed rate, whatever the server manages.
func latency(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	c, groups, err := z.latency.fill(ctx, s)
	if err != nil {
		return err
	}
	defer c.close()
	senders, targets := z.latency.sending(c, groups)
	acksBefore, deliveriesBefore := c.acks.Load(), c.deliveries.Load()
	every := time.Second * time.Duration(z.latency.size) / time.Duration(z.latencyPerSec)
	warm := int(min(warmUpMax, z.span/2) / every)
	total := warm + int(z.span/every)
	begun := time.Now()
	var from moment
	for i := range total {
		if i == warm {
			from = moment{at: time.Now(), deliveries: c.deliveries.Load()}
			c.endToEnd.Store(&bench.Histogram{})
		}
		// The schedule does not wait for a slow server: what is late is sent at once.
		if wait := time.Until(begun.Add(time.Duration(i) * every)); wait > 0 {
			if err := bench.Sleep(ctx, wait); err != nil {
				return err
			}
		}
		if err := senders[i%len(senders)].post(targets[i%len(senders)]); err != nil {
			return err
		}
	}
	if err := c.answered(ctx, acksBefore+int64(total)); err != nil {
		return err
	}
	if err := c.settle(ctx, acksBefore, deliveriesBefore, z.latency.size); err != nil {
		return err
	}
	to := moment{at: time.Now(), deliveries: c.deliveries.Load()}
	f, h := to.since(from), c.endToEnd.Load()
	what := fmt.Sprintf("%s at %s deliveries/s", z.latency, bench.Grouped(float64(z.latencyPerSec)))
	add(what+": end to end, p50 / p99", fmt.Sprintf("%s / %s", bench.Millis(h.Quantile(0.5)), bench.Millis(h.Quantile(0.99))),
		"≤ 0.75 × Node's socket.io, not measured in this run")
	add(what+": reached", bench.PerSecond(f.deliveries, f.seconds), "")
	return nil
}

// answered waits until as many sends have been acknowledged.
func (c *crowd) answered(ctx context.Context, acks int64) error {
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	for c.acks.Load()+c.refused.Load() < acks {
		if err := bench.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d acknowledgements, want %d: %w", c.acks.Load(), acks, err)
		}
	}
	return nil
}

// growth measures what a send costs as the group has more members who are not there. The sizes are measured in turns and
// each told by its median, since what the database does in the background would else count for some of them only.
func growth(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	const online, turns = 4, 5
	ids := make([]string, len(z.offline))
	crowds := make([]*crowd, len(z.offline))
	costs := make([][]float64, len(z.offline)) // CPU-seconds for 1,000 sends
	for i, offline := range z.offline {
		group := names(fmt.Sprintf("growth%d-", offline), online+offline)
		var err error
		if ids[i], err = s.CreateGroup(ctx, group); err != nil {
			return err
		}
		if crowds[i], err = connect(ctx, s, group[:online], busyBuffer); err != nil {
			return err
		}
		defer crowds[i].close()
	}
	for range turns {
		for i, c := range crowds {
			f, err := c.measure(ctx, s, c.clients, slices.Repeat([]string{ids[i]}, online), online, z.span/turns)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], costOf(f))
		}
	}
	first := bench.Median(costs[0])
	for i := range costs {
		value, bar := fmt.Sprintf("%.3f", bench.Median(costs[i])), ""
		if i > 0 && first > 0 {
			value, bar = fmt.Sprintf("%s (%.2f ×)", value, bench.Median(costs[i])/first), "≤ 1.2 × the first"
		}
		add(fmt.Sprintf("group of %s offline members, 4 online and sending: CPU-seconds for 1,000 durable sends", bench.Grouped(float64(z.offline[i]))), value, bar)
	}
	return nil
}

// idle measures the memory of connections that do nothing. The server is restarted before they come, so that it holds
// nothing that making their conversations left behind. What the kernel counts includes the caches of SQLite, which fill while
// the users sign in, and garbage that Go clears away when it next collects, at the latest after two minutes; so what Go
// itself says that it uses is told beside it.
func idle(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	users := names("idle-", z.idle)
	for round := range z.idleGroupsEach {
		// Each round groups the users anew, so that their conversations are not all with the same others.
		random := rand.New(rand.NewPCG(1, uint64(round)))
		random.Shuffle(len(users), func(i, j int) { users[i], users[j] = users[j], users[i] })
		for members := range slices.Chunk(users, z.idlePerGroup) {
			if _, err := s.CreateGroup(ctx, members); err != nil {
				return err
			}
		}
	}
	s.Stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	if err := bench.Sleep(ctx, z.idleSettle/4); err != nil {
		return err
	}
	before, err := s.ResidentBytes()
	if err != nil {
		return err
	}
	usedBefore, err := s.UsedByGo()
	if err != nil {
		return err
	}
	begun := time.Now()
	c, err := connect(ctx, s, users, idleBuffer)
	if err != nil {
		return err
	}
	defer c.close()
	took := time.Since(begun)
	// The lowest figure while the garbage of signing in is cleared away is what idle connections hold.
	lowest := int64(0)
	for end := time.Now().Add(z.idleSettle); ; {
		now, err := s.ResidentBytes()
		if err != nil {
			return err
		}
		if lowest == 0 || now < lowest {
			lowest = now
		}
		if time.Now().After(end) {
			break
		}
		if err := bench.Sleep(ctx, min(time.Second, z.idleSettle)); err != nil {
			return err
		}
	}
	used, err := s.UsedByGo()
	if err != nil {
		return err
	}
	if lost := c.lost.Load(); lost > 0 {
		return fmt.Errorf("%d of %d idle connections were lost", lost, len(users))
	}
	what := fmt.Sprintf("%s idle connections of users in %d conversations", bench.Grouped(float64(z.idle)), z.idleGroupsEach)
	add(what+": resident bytes each", bench.Grouped(float64(lowest-before)/float64(z.idle)), "≤ 6,500")
	add(what+": bytes each in Go's heap and stacks", bench.Grouped((used-usedBefore)/float64(z.idle)), "")
	add(what+": all signed in after", fmt.Sprintf("%.1f s", took.Seconds()), "")
	return nil
}

// snapshot measures what an old snapshot costs on PostgreSQL, such as that of a dump: it keeps the versions of rows that sends
// have replaced. The load goes on all the time; it is told as it was before, at the end of the snapshot, and half a minute after.
func snapshot(ctx context.Context, s *bench.Parley, z sizes, add func(measure, value, bar string)) error {
	if s.DatabaseURL() == "" {
		add("an old snapshot", "none: reads are bounded by a second", "")
		return nil
	}
	r := rooms{10, 10, 20}
	c, groups, err := r.fill(ctx, s)
	if err != nil {
		return err
	}
	defer c.close()
	senders, targets := r.sending(c, groups)
	tell := func(when string) error {
		f, err := c.measure(ctx, s, senders, targets, r.size, z.span)
		if err == nil {
			add(r.String()+", "+when, fmt.Sprintf("%s; %.3f CPU-seconds for 1,000", bench.PerSecond(f.sends, f.seconds), costOf(f)), "")
		}
		return err
	}
	if err := tell("before the snapshot"); err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, s.DatabaseURL())
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx)) // Its end ends the snapshot.
	if _, err := db.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, "SELECT COUNT(*) FROM messages"); err != nil {
		return err
	}
	for begun := time.Now(); time.Since(begun) < z.snapshot; {
		left := min(z.snapshot-time.Since(begun), 30*time.Second)
		if _, err := c.measure(ctx, s, senders, targets, r.size, left); err != nil {
			return err
		}
	}
	if err := tell(fmt.Sprintf("with a snapshot of %s", z.snapshot)); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, "COMMIT"); err != nil {
		return err
	}
	after := min(z.snapshot, 30*time.Second)
	if _, err := c.measure(ctx, s, senders, targets, r.size, after); err != nil {
		return err
	}
	return tell(fmt.Sprintf("%s after its end", after))
}

// costOf is the CPU time of a thousand sends, in seconds.
func costOf(f figures) float64 { return 1000 * f.cpuSeconds / max(1, f.sends) }

// fill makes the groups and connects all their members. conversations[i] is the group of clients[i].
func (r rooms) fill(ctx context.Context, s *bench.Parley) (c *crowd, conversations []string, err error) {
	users := names(fmt.Sprintf("r%dx%d-", r.count, r.size), r.count*r.size)
	for members := range slices.Chunk(users, r.size) {
		id, err := s.CreateGroup(ctx, members)
		if err != nil {
			return nil, nil, err
		}
		conversations = append(conversations, slices.Repeat([]string{id}, r.size)...)
	}
	c, err = connect(ctx, s, users, busyBuffer)
	return c, conversations, err
}

// sending picks the senders, as evenly from the groups as can be, and the conversation of each.
func (r rooms) sending(c *crowd, conversations []string) (senders []*client, targets []string) {
	for i := range r.senders {
		at := i%r.count*r.size + i/r.count%r.size
		senders, targets = append(senders, c.clients[at]), append(targets, conversations[at])
	}
	return senders, targets
}

func names(prefix string, n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = prefix + strconv.Itoa(i)
	}
	return users
}

// connectionsMax is how many connections this process and the server's, which has the same limit, may hold.
func connectionsMax() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const others = 500
	return int(min(limit.Max, 1<<20)) - others, nil
}
