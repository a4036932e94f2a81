// Command chaos runs Parley in worlds that break, as clients see it, and looks for broken promises.
//
//	go run ./test/chaos -world postgres -duration 10m -seed 7 -faults kill,pause
//	go run ./test/chaos -short
//	go run ./test/chaos -scenario writers -messages 100000
//	go run ./test/chaos -check record.jsonl
//
// It starts real servers (test/chaos/world), and people with devices that write, edit, delete and read over Socket.IO and REST, and come and go
// with their cursors as official clients do. Everything is recorded before and after it is done; then the record is judged
// (test/chaos/history). Any broken promise is a failure, and so is a broken build that is not caught.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

func main() {
	binary := flag.String("bin", "bin/parley", "the `program` to run")
	kind := flag.String("world", string(world.SQLite), "the `kind` of world: sqlite, postgres, nats or postgres-replica")
	nodes := flag.Int("nodes", 0, "how many `nodes`; 0: as many as the kind has usually")
	duration := flag.Duration("duration", time.Minute, "the `time` in which things happen")
	seed := flag.Uint64("seed", rand.Uint64N(1e9), "the `number` that decides what happens")
	faults := flag.String("faults", "all", "the `names` of the faults to inject, with commas between them; all; or none")
	lanes := flag.Int("lanes", 1, "how `many` faults may be on at once")
	people := flag.Int("people", 12, "how `many` users there are")
	devices := flag.Int("devices", 2, "how `many` devices each of them has")
	rate := flag.Int("rate", 250, "operations a `second`, of all devices together")
	folder := flag.String("o", "", "the `folder` for records, logs and reports; empty: a temporary one, removed if nothing is wrong")
	check := flag.String("check", "", "judge this `record`, and do nothing else")
	broken := flag.Bool("broken", false, "instead of -bin: see that the broken builds are caught")
	short := flag.Bool("short", false, "both worlds for a short time, and the broken builds")
	name := flag.String("scenario", "", "instead of faults: `writers`, removal, storm or overload")
	messages := flag.Int("messages", 100_000, "how `many` messages the writers write")
	times := flag.Int("times", 10_000, "how `often` a member is removed")
	clients := flag.Int("clients", 10_000, "how `many` clients the storm has")
	memory := flag.Int64("memory", 0, "the most `bytes` of memory that a node may use; 0: any number, under overload 512 MiB")
	flag.Parse()
	if err := world.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	o := options{world: world.Options{Kind: world.Kind(*kind), Nodes: *nodes, Binary: *binary, MemoryMaxBytes: *memory}, duration: *duration, seed: *seed, lanes: *lanes,
		people: *people, devices: *devices, rate: *rate, folder: *folder, lastMax: *duration / 4}
	switch *faults {
	case "all":
	case "none":
		o.faults = []string{}
	default:
		o.faults = strings.Split(*faults, ",")
	}
	var err error
	switch {
	case *check != "":
		err = recheck(*check)
	default:
		err = inFolder(o, func(o options) error {
			fmt.Printf("seed %d\n", o.seed)
			switch {
			case *broken:
				return catch(ctx, o)
			case *short:
				return shortly(ctx, o)
			case *name != "":
				s := scenarios[*name]
				if s == nil {
					return fmt.Errorf("there is no scenario %q", *name)
				}
				if *name == "overload" && *memory == 0 {
					o.world.MemoryMaxBytes = overloadMemory
				}
				return report(play(ctx, o, s, scenarioOptions{*messages, *times, *clients}))
			}
			return report(live(ctx, o))
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inFolder does something that leaves files, in a temporary folder if none was given; it stays if there is an error.
func inFolder(o options, do func(options) error) (err error) {
	temporary := o.folder == ""
	if temporary {
		if o.folder, err = os.MkdirTemp("", "parley-chaos-"); err != nil {
			return err
		}
	}
	if err = do(o); err != nil {
		return fmt.Errorf("%w\nseed %d; the records are in %s", err, o.seed, o.folder)
	}
	if temporary {
		return os.RemoveAll(o.folder)
	}
	return nil
}

var errViolated = errors.New("promises were broken")

// report prints what a run has shown, and writes it beside the record.
func report(out outcome, err error) error {
	if out.Record == "" {
		return err
	}
	fmt.Printf("world %s, seed %d, %.0f s\n%s", out.World, out.Seed, out.Seconds, out.Report)
	for _, m := range out.Missing {
		fmt.Printf("  left out: %s, for %s\n", m.Name, m.Why)
	}
	text, failed := json.MarshalIndent(out, "", "  ")
	if failed == nil {
		failed = os.WriteFile(filepath.Join(filepath.Dir(out.Record), "report.json"), text, 0o644)
	}
	if len(out.Found) > 0 {
		err = errors.Join(err, errViolated)
	}
	return errors.Join(err, failed)
}

// recheck judges a record of an earlier run.
func recheck(name string) error {
	r, err := history.Check(func() (io.ReadCloser, error) { return os.Open(name) })
	if err != nil {
		return err
	}
	fmt.Print(r)
	if len(r.Found) > 0 {
		return errViolated
	}
	return nil
}

// The parts of a short run, and how long a fault lasts in it that can be had shorter.
var shortParts = []struct {
	kind     world.Kind
	duration time.Duration
}{{world.SQLite, 30 * time.Second}, {world.Postgres, 50 * time.Second}}

const shortLast = 3 * time.Second

// shortFirst are the faults that no short run goes without.
var shortFirst = []string{"kill", "sync-slow"}

// shortly runs both worlds for a short time, and the broken builds.
func shortly(ctx context.Context, o options) error {
	o.lastMax, o.first = shortLast, shortFirst
	var err error
	for _, part := range shortParts {
		next := o
		next.world.Kind, next.folder, next.duration = part.kind, filepath.Join(o.folder, string(part.kind)), part.duration
		err = errors.Join(err, report(live(ctx, next)))
	}
	return errors.Join(err, catch(ctx, o))
}
