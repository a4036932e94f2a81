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
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/test/bench"
	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

// options say how a run is done.
type options struct {
	world     world.Options
	duration  time.Duration // of the time in which things happen
	seed      uint64
	faults    []string      // the names of those to inject; nil: all that the world can; empty: none
	first     []string      // of those, the ones that come before all others
	lanes     int           // how many faults may be on at once
	lastMax   time.Duration // of a fault that can be had shorter
	people    int
	devices   int // of each
	rate      int // operations a second of all devices together
	folder    string
	sendsOnly bool // nothing else is done
	hasty     bool // what nobody waits for cannot be judged, which does no harm where violations are wanted
}

const (
	// askingMax is how many requests by REST a device has under way at once.
	askingMax = 3
	// diskFull fills up a file system that SQLite gets for it, of diskBytes for every diskLasts that a run takes.
	diskFull  = "disk-full"
	diskBytes = 64 << 20
	diskLasts = 2 * time.Minute
	// ackMax is how soon after all is well again a node must acknowledge sends.
	ackMax = 2 * time.Second
	// healMax bounds the undoing of a fault: a node and its database are to be back.
	healMax = 2 * time.Minute
	// settleFor is longer than a request without an answer can wait in the buffers of a process that was frozen.
	settleFor = 3 * time.Second
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
	guests   []guest
	devices  []*device
	all      []conversation // the first is the one where all are
	archives []archive

	acting   atomic.Bool // new things are begun
	parting  atomic.Bool // connections are ended without need
	gate     gate        // before every connection
	sessions atomic.Int64
	versions atomic.Int64
	heard    atomic.Int64   // events
	work     sync.WaitGroup // of requests by REST

	mu      sync.Mutex
	errs    []error       // the first failures of the harness itself
	harmed  bool          // something was
	longest time.Duration // the longest harm that lasted
}

// fail notes that the harness could not do, or understand, something.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) < 10 {
		r.errs = append(r.errs, err)
	}
}

// settle is how long operations without an answer can still be under way when nothing is harmed any more. What was sent while a link was cut
// is sent again after a time that has doubled up to the length of the cut (RFC 6298, section 5.5).
func (r *run) settle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.harmed && !r.hasty {
		return settleFor + r.longest
	}
	return 0
}

func (r *run) version() int64 { return r.versions.Add(1) }

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

// prepare starts a world and its record. The caller calls finish, which ends the world and judges the record.
func prepare(ctx context.Context, o options) (r *run, finish func() (outcome, error), err error) {
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
	var left []world.Missing
	if o.world.Kind == world.SQLite && (o.faults == nil || slices.Contains(o.faults, diskFull)) {
		o.world.DiskMaxBytes = diskBytes * int64(1+o.duration/diskLasts)
	}
	w, err := world.Start(ctx, o.world)
	if err != nil && o.world.DiskMaxBytes > 0 {
		left = append(left, world.Missing{Name: diskFull, Why: err.Error()})
		o.world.DiskMaxBytes = 0
		w, err = world.Start(ctx, o.world)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close(), log.Close())
	}
	r = &run{options: o, world: w, rec: history.NewRecorder(file), web: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	finish = func() (outcome, error) {
		r.web.CloseIdleConnections()
		err := errors.Join(w.Close(), r.rec.Flush(), file.Close(), log.Close())
		out := outcome{Seed: o.seed, World: o.world.Kind, Record: name, Missing: append(left, w.Missing()...), Seconds: time.Since(begun).Seconds()}
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
	defer r.connect(ctx)()
	acting, stop := context.WithCancel(ctx)
	defer stop()
	var others sync.WaitGroup
	if !r.sendsOnly {
		others.Go(func() { r.keep(acting, r.random(1)) })
	}
	for i, node := range r.world.Nodes() {
		others.Go(func() { r.probe(acting, node, r.people[i%len(r.people)]) })
	}
	err := r.harm(ctx, time.Now().Add(r.duration))
	r.acting.Store(false)
	r.parting.Store(false)
	r.sleep(ctx, r.settle()) // The probes go on, so that there are some after the last healing.
	stop()
	others.Wait()
	if err != nil {
		return err
	}
	return r.end(ctx)
}

// connect lets the devices live, until the function is called that it returns.
func (r *run) connect(ctx context.Context) (leave func()) {
	living, cancel := context.WithCancel(ctx)
	var devices sync.WaitGroup
	r.acting.Store(true)
	r.parting.Store(true)
	for _, d := range r.devices {
		devices.Go(func() { d.live(living) })
	}
	return func() {
		cancel()
		devices.Wait()
		r.work.Wait()
	}
}

// random is a source of chances for one of those who act, the same for the same seed.
func (r *run) random(who int) *rand.Rand { return rand.New(rand.NewPCG(r.seed, uint64(who))) }

// archive is a client that keeps a cursor for the whole run.
type archive struct{ user, cursor string }
