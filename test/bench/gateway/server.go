package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"parley/test/bench"
)

const (
	startMax = 30 * time.Second
	stopMax  = 10 * time.Second
	buildMax = 5 * time.Minute
)

// A contender is one of the servers that are measured.
type contender struct {
	word  string // on the command line
	name  string // in the report
	start func(ctx context.Context, r *rig) (*server, error)
}

// The words of the contenders that the report speaks of.
const (
	gateway    = "gateway"
	whole      = "parley"
	node       = "node"
	centrifuge = "centrifuge"
	batching   = "centrifuge-delay"
	floor      = "floor"
	batchFloor = "floor-batch"
)

// writeDelay is the time for which the batching Centrifuge collects messages.
const writeDelay = 10 * time.Millisecond

var contenders = []contender{
	{word: gateway, name: "Parley's gateway", start: func(ctx context.Context, r *rig) (*server, error) {
		args := []string{r.built("socketio")}
		if r.profile != "" {
			args = append(args, "-cpuprofile", r.profile)
		}
		return r.launch(ctx, socketIO{}, args...)
	}},
	{word: node, name: "Node's socket.io", start: func(ctx context.Context, r *rig) (*server, error) {
		return r.launch(ctx, socketIO{}, "node", "--expose-gc", filepath.Join(r.sources, "node", "server.js"))
	}},
	{word: centrifuge, name: "Centrifuge", start: func(ctx context.Context, r *rig) (*server, error) {
		return r.launch(ctx, centrifugeWire{}, r.built("centrifuge"))
	}},
	{word: batching, name: "Centrifuge, write delay " + writeDelay.String(), start: func(ctx context.Context, r *rig) (*server, error) {
		return r.launch(ctx, centrifugeWire{}, r.built("centrifuge"), "-write-delay", writeDelay.String())
	}},
	{word: floor, name: "floor: one write(2) for each delivery", start: func(ctx context.Context, r *rig) (*server, error) {
		return r.launch(ctx, socketIO{}, r.built("floor"))
	}},
	{word: batchFloor, name: "floor: one write(2) for what waits", start: func(ctx context.Context, r *rig) (*server, error) {
		return r.launch(ctx, socketIO{}, r.built("floor"), "-batch")
	}},
	{word: whole, name: "the whole of Parley, on SQLite", start: func(ctx context.Context, r *rig) (*server, error) {
		p, err := bench.StartParley(ctx, r.parley, bench.Database{}, r.cores.Server)
		if err != nil {
			return nil, err
		}
		w := parleyWire{token: func(user int) string { return p.Token(userName(user)) }}
		return &server{Process: p.Process, address: p.Address, wire: w, parley: p, stop: p.Remove}, nil
	}},
}

// rig is what the servers are started from.
type rig struct {
	cores   bench.Cores
	sources string // the folder of this package's parent
	dir     string // for what is built
	parley  string // the built product
	profile string // the file for a CPU profile of the gateway; empty: none
}

// built is the program that build made of a folder of sources.
func (r *rig) built(name string) string { return filepath.Join(r.dir, name) }

// build builds the servers that are written in Go, and looks for the packages of the one that is not.
func (r *rig) build(ctx context.Context, words []string) error {
	ctx, cancel := context.WithTimeout(ctx, buildMax)
	defer cancel()
	for _, name := range []string{"socketio", "floor", "centrifuge"} {
		needed := slices.ContainsFunc(words, func(word string) bool {
			return word == name || name == "socketio" && word == gateway || name == "floor" && word == batchFloor || name == "centrifuge" && word == batching
		})
		if !needed {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", r.built(name), ".")
		cmd.Dir = filepath.Join(r.sources, name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build in %s: %w\n%s", cmd.Dir, err, out)
		}
	}
	if modules := filepath.Join(r.sources, "node", "node_modules"); slices.Contains(words, node) {
		if _, err := os.Stat(modules); err != nil {
			return fmt.Errorf("run npm ci in %s, or make bench-gateway: %w", filepath.Dir(modules), err)
		}
	}
	return nil
}

// server is a running contender.
type server struct {
	*bench.Process
	address string
	wire    wire
	stop    func()

	commands *bufio.Writer // to standard input
	parley   *bench.Parley // what commands cannot be given to
	groups   []string      // the ids of its rooms
}

// launch starts a server that takes commands on standard input.
func (r *rig) launch(ctx context.Context, w wire, args ...string) (*server, error) {
	address, err := bench.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := bench.Command{Args: append(args, address), Env: append(os.Environ(), "NODE_ENV=production"),
		Log: filepath.Join(r.dir, "log"), Cores: r.cores.Server, Stdin: true, StopMax: stopMax}.Start()
	if err != nil {
		return nil, err
	}
	err = p.Ready(ctx, startMax, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close() // It was only a knock.
		}
		return err == nil
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &server{Process: p, address: address, wire: w, stop: p.Stop, commands: bufio.NewWriterSize(p.Stdin, 16<<10)}, nil
}

// publish has one message sent to a room: by a command, or where there are none by the room's first client.
func (s *server) publish(c *crowd, room int, text []byte) error {
	if s.parley == nil {
		_, _ = s.commands.WriteString("p ") // A bufio.Writer keeps its first error.
		_, _ = s.commands.WriteString(roomName(room))
		_ = s.commands.WriteByte(' ')
		_, _ = s.commands.Write(text)
		return s.commands.WriteByte('\n')
	}
	id := strconv.FormatUint(c.numbers[room], 10)
	return c.first[room].Write("42", id, `["send-message",{"conversation_id":"`, s.groups[room], `","content":"`, string(text),
		`","client_message_id":"`, id, `"}]`)
}

// flush sends what publish has written.
func (s *server) flush() error {
	if s.commands == nil {
		return nil
	}
	return s.commands.Flush()
}

// collect has the server clear its garbage away, and reports whether it can be asked to.
func (s *server) collect() (bool, error) {
	if s.commands == nil {
		return false, nil
	}
	_, _ = s.commands.WriteString("g\n") // As in publish.
	return true, s.flush()
}

func roomName(room int) string { return "r" + strconv.Itoa(room) }

func userName(user int) string { return "u" + strconv.Itoa(user) }

// inRooms puts count clients into rooms of a size, one room each. In Parley it makes these.
func (s *server) inRooms(ctx context.Context, count, size int) ([]place, error) {
	places := make([]place, count)
	for i := range places {
		places[i] = place{user: i, rooms: roomName(i / size), room: i / size}
	}
	if s.parley == nil {
		return places, nil
	}
	return places, s.makeGroups(ctx, places, size)
}

// inManyRooms puts count clients into several rooms of a size each, always with others. They expect the messages of their first room.
// Parley starts again before they come, so that it holds nothing that making their conversations left behind.
func (s *server) inManyRooms(ctx context.Context, count, size, each int) ([]place, error) {
	places := make([]place, count)
	order := make([]int, count)
	for i := range order {
		order[i] = i
		places[i] = place{user: i, room: i / size}
	}
	for round := range each {
		for at, i := range order {
			if round > 0 {
				places[i].rooms += " "
			}
			places[i].rooms += roomName((round*count + at) / size)
		}
		if s.parley != nil {
			shuffled := make([]place, count)
			for at, i := range order {
				shuffled[at] = places[i]
			}
			if err := s.makeGroups(ctx, shuffled, size); err != nil {
				return nil, err
			}
		}
		random := rand.New(rand.NewPCG(1, uint64(round)))
		random.Shuffle(count, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	if s.parley == nil {
		return places, nil
	}
	s.parley.Stop()
	if err := s.parley.Start(ctx); err != nil {
		return nil, err
	}
	s.Process, s.address = s.parley.Process, s.parley.Address
	return places, nil
}

// makeGroups makes a conversation of each size places that follow each other.
func (s *server) makeGroups(ctx context.Context, places []place, size int) error {
	for members := range slices.Chunk(places, size) {
		names := make([]string, len(members))
		for i, p := range members {
			names[i] = userName(p.user)
		}
		id, err := s.parley.CreateGroup(ctx, names)
		if err != nil {
			return err
		}
		s.groups = append(s.groups, id)
	}
	return nil
}
