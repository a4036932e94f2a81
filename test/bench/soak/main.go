// Command soak runs a built Parley, on SQLite, for a long time under clients that come and go in every way there is, and looks for what
// grows: goroutines, descriptors, memory.
//
//	go run ./test/bench/soak -duration 30m -o docs/performance.md
//
// Each client is a user in two groups who sends at a steady rate, over WebSocket, by polling, or from one to the other; who breaks off after 5
// to 55 seconds cleanly, without a word, by a reset, by vanishing from the network, or by falling silent until the server finds out; and who
// comes back with a cursor. Each checks by seq and by the senders' own numbers that every message of its groups arrives once and in order, whether
// live, replayed or synced, and a message that was not acknowledged is sent again under its id. At the end all leave.
//
// It fails if a message is lost, doubled or out of order, if the server ends a connection that did nothing wrong, or if something has grown:
// between the middle and the end of the run, or between the start and when all have left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"parley/test/bench"
)

func main() {
	binary := flag.String("bin", "bin/parley", "the `program` to run")
	output := flag.String("o", "", "`page` to write the table into, between its marks, besides printing it")
	duration := flag.Duration("duration", 30*time.Minute, "the `time` for which clients come and go")
	every := flag.Duration("every", 15*time.Second, "the `time` between samples")
	clients := flag.Int("clients", 500, "`users`, a multiple of 20")
	rate := flag.Int("rate", 1000, "`sends` a second, if all were there all the time")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "`number` that decides who goes when and how")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	cores, err := bench.SplitCores()
	if err == nil {
		err = bench.PinProcess(cores.Load)
	}
	var text string
	if err == nil {
		o := options{binary: *binary, clients: *clients, rate: *rate, seed: *seed, duration: *duration, every: *every,
			stayMin: 5 * time.Second, stayMax: 55 * time.Second, awayMax: 3 * time.Second, longAwayMax: 45 * time.Second}
		text, err = run(ctx, o, cores, "go run ./test/bench/soak "+strings.Join(os.Args[1:], " "))
	}
	fmt.Print(text)
	if *output != "" && text != "" {
		err = errors.Join(err, bench.MarksOf("soak").Write(*output, text))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are how a run is done. A test has shorter times.
type options struct {
	binary           string
	clients          int // a multiple of groupSize
	rate             int // sends a second, if all were there all the time
	seed             uint64
	duration, every  time.Duration
	stayMin, stayMax time.Duration // of a connection
	awayMax          time.Duration // between two connections, mostly
	longAwayMax      time.Duration // for one in ten: so long that more is missed than is replayed
	settings         []string      // of the server, beside those of every measurement
}

const (
	groupSize  = 20
	groupsEach = 2
	// arriveMax bounds the wait until everybody is there at the beginning, and has everything at the end.
	arriveMax = time.Minute
	// quietLooks is how many looks, a second apart, must see nothing come before everything has.
	quietLooks = 3
	// leaveMax bounds the wait until the server is as it was before: a connection that vanished is noticed by the ping timeout, after 45 s at
	// most; Go collects the garbage of a server without work every 2 minutes.
	leaveMax = 4 * time.Minute
)

// soak is one run.
type soak struct {
	options
	parley *bench.Parley
	people []*person

	sending    atomic.Bool
	acks       atomic.Int64
	deliveries atomic.Int64

	mu       sync.Mutex
	counts   map[string]int   // arrivals and departures by their kind
	acked    map[string]int64 // the highest seq that was acknowledged, by conversation
	errs     []error          // the first of what went wrong
	errsAll  int
	trouble  []error // the first connections that the server ended, or refused
	troubles int
}

// errsKept is how many errors are told; the others are counted.
const errsKept = 10

// wrong notes a broken promise.
func (s *soak) wrong(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.errsAll++; len(s.errs) < errsKept {
		s.errs = append(s.errs, err)
	}
}

// troubled notes a connection that the server refused or ended without need.
func (s *soak) troubled(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.troubles++; len(s.trouble) < errsKept {
		s.trouble = append(s.trouble, err)
	}
}

func (s *soak) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[kind]++
}

// acknowledged notes that the server has accepted a message.
func (s *soak) acknowledged(conversation string, seq int64) {
	s.acks.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[conversation] = max(s.acked[conversation], seq)
}

// run soaks a server and returns the report.
func run(ctx context.Context, o options, cores bench.Cores, command string) (string, error) {
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return "", err
	}
	s := &soak{options: o, counts: map[string]int{}, acked: map[string]int64{}}
	if s.parley, err = bench.StartParley(ctx, binary, bench.Database{}, cores.Server, o.settings...); err != nil {
		return "", err
	}
	defer s.parley.Remove()
	if err := s.invite(ctx); err != nil {
		return "", err
	}
	rec := &record{soak: s, begun: time.Now()}
	if rec.start, err = rec.sample(); err != nil {
		return "", err
	}
	err = s.live(ctx, rec)
	for _, wrong := range s.errs {
		err = errors.Join(err, wrong)
	}
	if s.errsAll > 0 {
		err = errors.Join(err, fmt.Errorf("soak: %d promises were broken in all", s.errsAll))
	}
	if s.troubles > 0 {
		err = errors.Join(err, fmt.Errorf("soak: the server refused or ended %d connections, first: %w", s.troubles, errors.Join(s.trouble...)))
	}
	if err != nil {
		err = fmt.Errorf("%w\nseed %d; the server's log ends:\n%s", err, o.seed, s.parley.LogTail())
	}
	facts := append(bench.Circumstances(cores, command),
		fmt.Sprintf("%d users, each in %d groups of %d, on SQLite; %s acknowledged sends, %s checked deliveries.", o.clients, groupsEach, groupSize,
			bench.Grouped(float64(s.acks.Load())), bench.Grouped(float64(s.deliveries.Load()))),
		"Came and went: "+s.comings()+".")
	text := rec.markdown(facts)
	return text, errors.Join(err, rec.growth())
}

// invite makes the users and their groups: each is with others in the second than in the first.
func (s *soak) invite(ctx context.Context) error {
	for i := range s.clients {
		s.people = append(s.people, &person{soak: s, name: fmt.Sprintf("soak-%d", i), number: i, views: map[string]*view{},
			random: rand.New(rand.NewPCG(s.seed, uint64(i)))})
	}
	groups := s.clients / groupSize
	for round := range groupsEach {
		for g := range groups {
			var members []*person
			var names []string
			for k := range groupSize {
				p := s.people[g*groupSize+k]
				if round > 0 {
					p = s.people[k*groups+g]
				}
				members, names = append(members, p), append(names, p.name)
			}
			id, err := s.parley.CreateGroup(ctx, names)
			if err != nil {
				return err
			}
			for _, p := range members {
				p.views[id], p.groups = &view{from: map[int]int64{}}, append(p.groups, id)
			}
		}
	}
	return nil
}

// live lets the people live for a while, and leave.
func (s *soak) live(ctx context.Context, rec *record) error {
	living, stop := context.WithCancel(ctx)
	defer stop()
	leave := make(chan struct{})
	var wg sync.WaitGroup
	for _, p := range s.people {
		wg.Go(func() { p.live(living, leave) })
	}
	err := until(ctx, arriveMax, func() (bool, error) {
		sessions, err := s.parley.Metric("parley_gateway_sessions")
		return sessions >= 0.8*float64(len(s.people)), err
	})
	s.sending.Store(true)
	for end := time.Now().Add(s.duration); err == nil && time.Now().Before(end); {
		if err = bench.Sleep(ctx, s.every); err == nil {
			err = rec.take()
		}
	}
	s.sending.Store(false)
	stop()
	if err == nil {
		// A person belongs to its goroutine, so what each has is looked at when all have left. Until nothing more comes they stay.
		last, quiet := int64(-1), 0
		err = until(ctx, arriveMax, func() (bool, error) {
			now := s.deliveries.Load()
			if quiet++; now != last {
				last, quiet = now, 0
			}
			return quiet == quietLooks, nil
		})
	}
	close(leave)
	wg.Wait()
	if err == nil {
		err = s.unfinished()
	}
	if err != nil {
		return err
	}
	if err = until(ctx, leaveMax, rec.settled); errors.Is(err, context.DeadlineExceeded) {
		err = nil // What has not gone is told by the table, and by growth.
	}
	return err
}

// unfinished returns what has not come by the end: a message that was never acknowledged, or one that was and did not reach everybody.
func (s *soak) unfinished() error {
	for _, p := range s.people {
		if p.pending != nil {
			return fmt.Errorf("soak: %s was never told of its message %s", p.name, p.pending.id)
		}
		for id, v := range p.views {
			if v.last != s.acked[id] {
				return fmt.Errorf("soak: %s has conversation %s up to seq %d, and %d was acknowledged", p.name, id, v.last, s.acked[id])
			}
		}
	}
	return nil
}

// comings lists how often each kind of coming and going was.
func (s *soak) comings() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, kind := range []string{"websocket", "polling, then websocket", "polling", cleanly, engineEnd, byFIN, byRST, vanished, frozen, abandoned, "had to sync"} {
		parts = append(parts, fmt.Sprintf("%s %s", kind, bench.Grouped(float64(s.counts[kind]))))
	}
	return strings.Join(parts, "; ")
}

// until waits for a condition, which it looks at once a second.
func until(ctx context.Context, most time.Duration, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		ok, err := condition()
		if ok || err != nil {
			return err
		}
		if err := bench.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}
