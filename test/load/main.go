// Command load measures a built Parley through its public wire: it starts `parley serve` as a process of its own with an
// empty temporary data folder, signs in many users over Socket.IO, and prints one table of what they saw beside the
// figures that Parley means to reach.
//
//	go run ./test/load -o docs/performance.md
//
// It measures durable sends by the number under way, rooms in which everyone is online, latency at a fixed rate, the cost
// of a send in a growing group, and the memory of idle connections, on SQLite and on a private PostgreSQL. Where the
// machine has two cores or more, the server (with its database) and the load are pinned to different ones. Everything is
// bounded in count and time, speaks to loopback only, and ends with this process. It imports nothing of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"parley/test/bench"
	"parley/test/postgres"
)

// runMax bounds a whole run.
const runMax = 20 * time.Minute

// databaseNames are the columns of the table, by the word of the flag.
var databaseNames = map[string]string{"sqlite": "SQLite", "postgres": "PostgreSQL"}

func main() {
	binary := flag.String("bin", "bin/parley", "the `program` to measure")
	output := flag.String("o", "", "`page` to write the table into, between its marks, besides printing it")
	databases := flag.String("databases", "sqlite,postgres", "the databases to measure on")
	only := flag.String("only", "sends,rooms,latency,growth,idle", "the scenarios to run")
	span := flag.Duration("span", 5*time.Second, "the `time` of each measurement")
	idle := flag.Int("idle", 10_000, "idle `connections`; fewer where the limit on open files says so")
	settle := flag.Duration("settle", 20*time.Second, "the `time` that idle connections are watched; Go collects garbage after 2m")
	old := flag.Duration("snapshot", 10*time.Minute, "how `old` the snapshot of that scenario gets, which is not run by default")
	offline := flag.Int("offline", 10_000, "offline `members` of the largest group")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, runMax)
	defer cancel()

	z := defaultSizes(*span, *offline, *idle, *settle)
	z.snapshot = *old
	command := "go run ./test/load " + strings.Join(os.Args[1:], " ")
	r, err := run(ctx, *binary, strings.Split(*databases, ","), strings.Split(*only, ","), z, strings.TrimSpace(command))
	if r != nil {
		fmt.Print(r.markdown())
		if *output != "" {
			err = errors.Join(err, bench.MarksOf("bench").Write(*output, r.markdown()))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// defaultSizes are the sizes of the bars.
func defaultSizes(span time.Duration, offline, idle int, settle time.Duration) sizes {
	z := sizes{
		span:          span,
		inFlight:      []int{1, 16, 256, 2048},
		rooms:         []rooms{{10, 10, 20}, {1, 100, 20}, {1, 1000, 20}},
		latency:       rooms{10, 100, 20},
		latencyPerSec: 20_000,
		idle:          idle, idlePerGroup: 100, idleGroupsEach: 20, idleSettle: settle,
	}
	for n := 10; n < offline; n *= 10 {
		z.offline = append(z.offline, n)
	}
	z.offline = append(z.offline, offline)
	return z
}

// run runs the scenarios on each database and returns the table. What a scenario could not measure stands in the error,
// and in the table; the others are run all the same.
func run(ctx context.Context, binary string, databases, only []string, z sizes, command string) (*report, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("nothing to measure, run `make build`: %w", err)
	}
	most, err := connectionsMax()
	if err != nil {
		return nil, err
	}
	z.idle = min(z.idle, most)
	c, err := bench.SplitCores()
	if err != nil {
		return nil, err
	}
	if err := bench.PinProcess(c.Load); err != nil {
		return nil, err
	}
	var columns []string
	for _, word := range databases {
		name, known := databaseNames[word]
		if !known {
			return nil, fmt.Errorf("-databases: %q is neither sqlite nor postgres", word)
		}
		columns = append(columns, name)
	}
	r := newReport(columns)
	r.facts = append(bench.Circumstances(c, command),
		"Every send is acknowledged after its commit; the clients count every delivery, and a run in which one is lost or comes twice fails.")
	var failures error
	for i, word := range databases {
		for _, sc := range scenarios {
			if !slices.Contains(only, sc.name) {
				continue
			}
			add := func(measure, value, bar string) { r.add(columns[i], measure, value, bar) }
			fmt.Fprintf(os.Stderr, "load: %s on %s\n", sc.name, columns[i])
			if err := runOne(ctx, sc, binary, word, c.Server, z, add); err != nil {
				failures = errors.Join(failures, fmt.Errorf("load: %s on %s: %w", sc.name, columns[i], err))
				add(sc.name+": failed, see the run's output", "failed", "")
			}
		}
	}
	return r, failures
}

// runOne runs one scenario on a server, and a database, of its own.
func runOne(ctx context.Context, sc scenario, binary, word string, serverCores []int, z sizes, add func(measure, value, bar string)) error {
	var db bench.Database
	if word == "postgres" {
		cluster, err := startCluster(ctx, serverCores)
		if err != nil {
			return err
		}
		defer cluster.Stop()
		db.URL = cluster.URL
		if db.Postmaster, err = cluster.PID(); err != nil {
			return err
		}
	}
	s, err := bench.StartParley(ctx, binary, db, serverCores)
	if err != nil {
		return err
	}
	defer s.Remove()
	if err := sc.run(ctx, s, z, add); err != nil {
		return fmt.Errorf("%w\nthe server's log ends:\n%s", err, s.LogTail())
	}
	return nil
}

// startCluster starts PostgreSQL on the server's cores.
func startCluster(ctx context.Context, on []int) (*postgres.Cluster, error) {
	var cluster *postgres.Cluster
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err = bench.PinThread(on); err == nil {
			cluster, err = postgres.Start(ctx, postgres.Options{})
		}
	}()
	<-done
	return cluster, err
}
