package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// options say how a run is done.
type options struct {
	world    world.Options
	duration time.Duration // of the time in which things happen
	seed     uint64
	faults   []string // the names of those to inject; nil: all that the world can; empty: none
	lanes    int      // how many faults may be on at once
	people   int
	devices  int // of each
	rate     int // operations a second of all devices together
	folder   string
}

const (
	// groupSize is the members of a group beside the one where all are.
	groupSize = 5
	// askingMax is how many requests by REST a device has under way at once.
	askingMax = 3
	// ackMax is how soon after all is well again a node must acknowledge sends.
	ackMax = 2 * time.Second
	// healMax bounds the undoing of a fault: a node and its database are to be back.
	healMax = 2 * time.Minute
	// settleFor is longer than a request without an answer can wait somewhere when nothing is harmed any more: in the buffers of a
	// process that was frozen, or to be sent again over a link that was cut.
	settleFor = 5 * time.Second
	// quietFor is how long nothing must come to anybody before all has come: longer than the 2 s between the server's looks at its log.
	quietFor = 3 * time.Second
	// quietMax bounds the wait until all devices are connected and have everything.
	quietMax = time.Minute
)

// run is one world with its clients.
type run struct {
	options
	world *world.World
	rec   *history.Recorder
	web   *http.Client

	people   []*person
	host     string   // owns the group that guests come to and leave
	coming   string   // that group
	guests   []string // who come and leave
	devices  []*device
	all      []conversation // the first is the one where all are
	archives []archive

	acting   atomic.Bool // new things are begun
	parting  atomic.Bool // connections are ended without need
	sessions atomic.Int64
	versions atomic.Int64
	heard    atomic.Int64   // events
	work     sync.WaitGroup // of requests by REST

	mu   sync.Mutex
	errs []error // the first failures of the harness itself
}

// fail notes that the harness could not do, or understand, something.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) < 10 {
		r.errs = append(r.errs, err)
	}
}

func (r *run) version() int64 { return r.versions.Add(1) }

// pause is the time between two things that a device does.
func (r *run) pause(random *rand.Rand) time.Duration {
	mean := time.Second * time.Duration(len(r.devices)) / time.Duration(r.rate)
	return mean/2 + time.Duration(random.Int64N(int64(mean)))
}

func (r *run) sleep(ctx context.Context, d time.Duration) { _ = bench.Sleep(ctx, d) } // The caller looks at ctx.

func (r *run) mark(l history.Line) {
	l.Phase = history.Mark
	r.rec.Add(l)
}

// outcome is what a run has shown.
type outcome struct {
	Seed    uint64          `json:"seed"`
	World   world.Kind      `json:"world"`
	Record  string          `json:"record"` // the file
	Missing []world.Missing `json:"missing"`
	Seconds float64         `json:"seconds"`
	history.Report
}

// prepare starts a world and its record. The caller calls close.
func prepare(ctx context.Context, o options) (*run, func() (outcome, error), error) {
	if err := os.MkdirAll(o.folder, 0o755); err != nil {
		return nil, nil, err
	}
	name := filepath.Join(o.folder, "record.jsonl")
	// A world with data of an earlier one would be found to have invented them.
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(o.folder, "world.log"))
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	o.world.Log, o.world.Dir = log, filepath.Join(o.folder, "world")
	begun := time.Now()
	w, err := world.Start(ctx, o.world)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close(), log.Close())
	}
	r := &run{options: o, world: w, rec: history.NewRecorder(file), web: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	// finish ends the world and judges the record.
	finish := func() (outcome, error) {
		r.web.CloseIdleConnections()
		err := errors.Join(w.Close(), r.rec.Flush(), file.Close(), log.Close())
		out := outcome{Seed: o.seed, World: o.world.Kind, Record: name, Missing: w.Missing(), Seconds: time.Since(begun).Seconds()}
		if err == nil {
			out.Report, err = history.Check(func() (io.ReadCloser, error) { return os.Open(name) })
		}
		for _, exit := range w.Exits() {
			if !exit.Starting {
				r.fail(fmt.Errorf("%s ended by itself: %s", exit.Node, exit.Cause))
			}
		}
		return out, errors.Join(append(r.errs, err)...)
	}
	return r, finish, nil
}

// live runs a world under faults, and judges it.
func live(ctx context.Context, o options) (outcome, error) {
	r, finish, err := prepare(ctx, o)
	if err != nil {
		return outcome{}, err
	}
	if err := r.live(ctx); err != nil {
		r.fail(err)
	}
	return finish()
}

func (r *run) live(ctx context.Context) error {
	if err := r.settleIn(ctx); err != nil {
		return err
	}
	for _, p := range r.people { // Clients that ask for nothing until the end.
		if out := r.sync(ctx, r.world.Nodes()[0], p.name, "archive-"+p.name, ""); out.Phase != history.OK {
			return fmt.Errorf("a cursor for %s: %s", p.name, out.Code)
		} else {
			r.archives = append(r.archives, archive{p.name, out.Cursor})
		}
	}
	living, leave := context.WithCancel(ctx)
	acting, stop := context.WithCancel(ctx)
	defer stop()
	var devices, others sync.WaitGroup
	defer func() {
		leave()
		devices.Wait()
		r.work.Wait()
	}()
	r.acting.Store(true)
	r.parting.Store(true)
	for _, d := range r.devices {
		devices.Go(func() { d.live(living) })
	}
	others.Go(func() { r.keep(acting, r.random(1)) })
	for i, node := range r.world.Nodes() {
		others.Go(func() { r.probe(acting, node, r.people[i%len(r.people)]) })
	}
	err := r.harm(ctx, time.Now().Add(r.duration))
	r.sleep(ctx, ackMax+probeEvery) // So that all probes of the last healing are there.
	r.acting.Store(false)
	r.parting.Store(false)
	stop()
	others.Wait()
	if err != nil {
		return err
	}
	return r.end(ctx)
}

// random is a source of chances for one of those who act, the same for the same seed.
func (r *run) random(who int) *rand.Rand { return rand.New(rand.NewPCG(r.seed, uint64(who))) }

// archive is a client that keeps a cursor for the whole run.
type archive struct{ user, cursor string }

// settleIn makes the people, their conversations, and their devices.
func (r *run) settleIn(ctx context.Context) error {
	node := r.world.Nodes()[0]
	var names []string
	for i := range r.options.people {
		p := &person{name: fmt.Sprintf("u%d", i), tops: map[string]int64{}}
		r.people, names = append(r.people, p), append(names, p.name)
	}
	found := func(kind string, members []int) (string, error) {
		var others []string
		for _, i := range members[1:] {
			others = append(others, names[i])
		}
		id, err := r.create(ctx, node, kind, names[members[0]], others)
		for _, i := range members {
			r.people[i].conversations = append(r.people[i].conversations, id)
		}
		r.all = append(r.all, conversation{id, names[members[0]]})
		return id, err
	}
	n := r.options.people
	everybody := []int{}
	for i := range n {
		everybody = append(everybody, i)
	}
	if _, err := found("group", everybody); err != nil {
		return err
	}
	for first := 0; first < n; first += groupSize {
		members := everybody[first:min(first+groupSize, n)]
		if _, err := found("group", members); err != nil {
			return err
		}
	}
	for i := 0; i+1 < n; i += 2 {
		if _, err := found("direct", []int{i, i + 1}); err != nil {
			return err
		}
	}
	// The guests are half of the people; the host is none of them.
	r.host, r.guests = names[0], names[n/2:]
	coming, err := found("group", append([]int{0}, everybody[n/2:]...))
	if err != nil {
		return err
	}
	r.coming = coming
	for i, p := range r.people {
		group := 1 + (i/groupSize+1)%((n+groupSize-1)/groupSize) // The group behind one's own.
		p.elsewhere = r.all[group].id
		for k := range r.options.devices {
			r.devices = append(r.devices, &device{run: r, person: p, name: fmt.Sprintf("%s.%d", p.name, k), asking: make(chan struct{}, askingMax),
				random: r.random(100 + i*10 + k)})
		}
	}
	return nil
}

// conversation is one, and who may always read it.
type conversation struct{ id, owner string }
