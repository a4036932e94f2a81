// Command gateway measures Parley's gateway beside the servers that it is compared with, in one run: the official Socket.IO server on Node,
// and Centrifuge. Each does the same job in memory, rooms to which a message is sent on command (../socketio, ../node, ../centrifuge); the
// whole of Parley joins in where a durable chat can be compared with that, and ../floor shows what the system calls alone cost.
//
//	go run ./test/bench/gateway -o docs/performance.md
//	go run ./test/bench/gateway -only saturated -who gateway,node -span 1s -rounds 1
//
// Servers take turns: in each round every server is started anew, warmed up and measured, and the median of the rounds is told. The server is
// kept to one core (or the first half of them), the load to the other. All clients are read by the same code, which checks each message: one
// that is lost, doubled or out of order fails the measurement. Everything is bounded in count and time, speaks to loopback only, and
// ends with this process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"parley/test/bench"
)

// runMax bounds a whole run, measureMax one measurement of one server.
const (
	runMax     = 90 * time.Minute
	measureMax = 5 * time.Minute
)

func main() {
	parley := flag.String("bin", "bin/parley", "the built `program`, for the rows of the whole of Parley")
	sources := flag.String("sources", "test/bench", "the `folder` with the servers")
	output := flag.String("o", "", "`page` to write the table into, between its marks, besides printing it")
	only := flag.String("only", "saturated,latency,idle,slow", "the scenarios to run")
	who := flag.String("who", "", "the servers to measure, of "+strings.Join(words(), ",")+"; empty: all")
	rounds := flag.Int("rounds", 3, "`times` that each server is measured")
	span := flag.Duration("span", 3*time.Second, "the `time` of each measurement")
	connections := flag.Int("connections", 1000, "busy `connections`, a multiple of 1,000")
	idle := flag.Int("idle", 10_000, "idle `connections`, a multiple of 100")
	windows := flag.String("windows", "1,8,64", "the `messages` under way to each connection when servers are saturated, the fewest first")
	settle := flag.Duration("settle", 30*time.Second, "the `time` between the last idle connection and the reading of the memory")
	stalled := flag.Duration("stalled", 45*time.Second, "the most `time` given to a server to cut off those that stopped reading")
	profile := flag.String("cpuprofile", "", "`file` for a CPU profile of the last run of Parley's gateway")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, runMax)
	defer cancel()

	z := sizes{
		span: *span, rounds: *rounds, connections: *connections, rooms: []int{10, 100, 1000}, messageBytes: 200,
		latencyRoom: 100, latencyPerSec: 20_000, idle: *idle, idleRoom: 100, idleRooms: 20, idleSettle: *settle,
		stalled: 1000, stalledBytes: []int{2000, 8000}, stalledMax: *stalled,
	}
	for word := range strings.SplitSeq(*windows, ",") {
		window, err := strconv.Atoi(word)
		if err != nil || window < 1 {
			fmt.Fprintf(os.Stderr, "-windows: %q is no number of messages\n", word)
			os.Exit(2)
		}
		z.windows = append(z.windows, window)
	}
	chosen := strings.Split(*who, ",")
	if *who == "" {
		chosen = words()
	}
	err := run(ctx, *parley, *sources, *profile, chosen, strings.Split(*only, ","), z, *output)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func words() []string {
	var words []string
	for _, c := range contenders {
		words = append(words, c.word)
	}
	return words
}

// run measures, prints the table and writes it into the page. What could not be measured stands in the table and in the error; the rest is
// measured all the same.
func run(ctx context.Context, parley, sources, profile string, who, only []string, z sizes, output string) error {
	r := &rig{}
	var err error
	if r.parley, err = filepath.Abs(parley); err != nil {
		return err
	}
	if r.sources, err = filepath.Abs(sources); err != nil {
		return err
	}
	if profile != "" {
		if r.profile, err = filepath.Abs(profile); err != nil {
			return err
		}
	}
	if r.dir, err = os.MkdirTemp("", "parley-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	if err := r.build(ctx, who); err != nil {
		return err
	}
	if r.cores, err = bench.SplitCores(); err != nil {
		return err
	}
	if err := bench.PinProcess(r.cores.Load); err != nil {
		return err
	}
	all, failures := r.measureAll(ctx, who, only, z)
	all.pickWindows(z)
	text := all.markdown(z, r.facts(z))
	fmt.Print(text)
	if output != "" {
		failures = errors.Join(failures, bench.MarksOf("gateway").Write(output, text))
	}
	return failures
}

// measureAll runs the scenarios, their contenders in turns.
func (r *rig) measureAll(ctx context.Context, who, only []string, z sizes) (*results, error) {
	all := newResults()
	var failures error
	for _, sc := range scenarios {
		if !slices.Contains(only, sc.name) {
			continue
		}
		for _, variant := range sc.variants(z) {
			for round := range z.rounds {
				for _, c := range contenders {
					if !slices.Contains(who, c.word) || !slices.Contains(sc.who, c.word) {
						continue
					}
					k := key{scenario: sc.name, variant: variant, who: c.word}
					if _, failed := all.failures[k]; failed {
						continue
					}
					fmt.Fprintf(os.Stderr, "bench: %s %d, round %d: %s\n", sc.name, variant, round+1, c.name)
					if err := r.measure(ctx, sc, c, z, k, all); err != nil {
						all.failures[k], _, _ = strings.Cut(err.Error(), "\n")
						failures = errors.Join(failures, fmt.Errorf("bench: %s %d, %s: %w", sc.name, variant, c.name, err))
					}
					if ctx.Err() != nil {
						return all, errors.Join(failures, context.Cause(ctx))
					}
				}
			}
		}
	}
	return all, failures
}

// measure runs one scenario once on one server.
func (r *rig) measure(ctx context.Context, sc scenario, c contender, z sizes, k key, all *results) error {
	ctx, cancel := context.WithTimeout(ctx, measureMax)
	defer cancel()
	s, err := c.start(ctx, r)
	if err != nil {
		return err
	}
	defer s.stop()
	add := func(figure string, value float64) {
		k := k
		k.figure = figure
		all.values[k] = append(all.values[k], value)
	}
	if err := sc.run(ctx, measurement{server: s, sizes: z, variant: k.variant, add: add}); err != nil {
		return fmt.Errorf("%w\nthe server's log ends:\n%s", err, s.LogTail())
	}
	return nil
}

// facts say what the figures hold for.
func (r *rig) facts(z sizes) []string {
	version := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	facts := bench.Circumstances(r.cores, "go run ./test/bench/gateway "+strings.Join(os.Args[1:], " "))
	return append(facts,
		fmt.Sprintf("Versions: Node.js %s, socket.io %s with bufferutil and utf-8-validate, centrifuge %s.", version("node", "--version"),
			version("node", "-p", "require('"+filepath.Join(r.sources, "node", "node_modules", "socket.io", "package.json")+"').version"),
			version("go", "-C", filepath.Join(r.sources, "centrifuge"), "list", "-m", "-f", "{{.Version}}", "github.com/centrifugal/centrifuge")),
		fmt.Sprintf("%s busy connections over WebSocket, messages of %d bytes; rounds: %d, of %s each; every server started anew.",
			bench.Grouped(float64(z.connections)), z.messageBytes, z.rounds, z.span),
		fmt.Sprintf("The window is how many messages were under way to each connection; %s were tried. More of them fill a server's queues, so that "+
			"one that writes a queue at once does so with fewer system calls.", strings.Trim(fmt.Sprint(z.windows), "[]")),
	)
}
