package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/test/bench"
)

// A Kind says what a world is made of.
type Kind string

// The kinds of worlds.
const (
	SQLite          Kind = "sqlite"           // one node with its own database
	Postgres        Kind = "postgres"         // nodes on one PostgreSQL, their NATS inside of them as a cluster
	NATS            Kind = "nats"             // nodes on one PostgreSQL, and one NATS server outside of them
	PostgresReplica Kind = "postgres-replica" // as Postgres, and PostgreSQL has a synchronous standby to fail over to
)

// Kinds are all of them.
var Kinds = []Kind{SQLite, Postgres, NATS, PostgresReplica}

// Options say which world to start.
type Options struct {
	Kind Kind
	// Nodes is how many there are; 0: two, or the one that SQLite allows.
	Nodes int
	// Binary is the parley to run; a relative path is taken from the working folder.
	Binary string
	// Dir is for the nodes' data and for logs, which stay there after Close. Empty: a temporary folder, which does not stay.
	Dir string
	// Env are further environment variables of the nodes, as NAME=value, which go before those of the world.
	Env []string
	// Log gets a line for whatever the world does; nil: nobody.
	Log io.Writer
	// MemoryMaxBytes is the limit of each node's memory group, file cache included; 0: none.
	MemoryMaxBytes int64
	// DiskMaxBytes has the data folder of the node of SQLite be a file system of that size, kept in memory, which can be filled up; 0: a
	// plain folder. It needs [Isolate]. What is in it is gone after Close.
	DiskMaxBytes int64
}

// A World is a running one. Its methods may be called from any goroutine.
type World struct {
	options        Options
	dir            string
	temporary      bool
	secret, apiKey string
	log            *slog.Logger
	nodes          []*Node
	postgres       *database   // nil on SQLite
	nats           *natsServer // nil unless it is outside of the nodes
	faults         []Fault
	missing        []Missing

	closed   bool
	watching sync.WaitGroup // of the ends of the nodes' processes

	mu     sync.Mutex
	harmed map[string]bool // targets of faults that are on; see harm
	exits  []Exit
}

// An Exit is an end of a node that the world did not ask for. The node is started again when a fault is healed.
type Exit struct {
	Node     string
	Time     time.Time
	Starting bool // before it was ready
	Cause    string
}

// Start makes a world and returns once all nodes are ready. ctx is for the start alone; [World.Close] ends what was started.
func Start(ctx context.Context, o Options) (_ *World, err error) {
	w, err := newWorld(o)
	if err != nil {
		return nil, fmt.Errorf("world: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("world: %w", err), w.Close())
		}
	}()
	if err := w.makeFolder(); err != nil {
		return nil, err
	}
	if w.options.Kind != SQLite {
		if err := w.startDatabase(ctx); err != nil {
			return nil, err
		}
	}
	if w.options.Kind == NATS {
		if err := w.startNATS(ctx); err != nil {
			return nil, err
		}
	}
	if err := w.makeNodes(); err != nil {
		return nil, err
	}
	if err := w.recover(ctx, ""); err != nil {
		return nil, err
	}
	w.choose()
	w.log.Info("started", "kind", w.options.Kind, "nodes", w.options.Nodes, "left out", w.missing)
	return w, nil
}

// newWorld makes one in which nothing runs, with the defaults of the options filled in.
func newWorld(o Options) (*World, error) {
	switch {
	case !slices.Contains(Kinds, o.Kind):
		return nil, fmt.Errorf("there is no kind %q", o.Kind)
	case o.Nodes < 0 || o.Kind == SQLite && o.Nodes > 1:
		return nil, fmt.Errorf("%s cannot have %d nodes", o.Kind, o.Nodes)
	case o.DiskMaxBytes > 0 && o.Kind != SQLite:
		return nil, fmt.Errorf("the nodes of %s keep no data on their disks", o.Kind)
	case o.Kind == SQLite:
		o.Nodes = 1
	case o.Nodes == 0:
		o.Nodes = 2
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	var err error
	if o.Binary, err = filepath.Abs(o.Binary); err != nil {
		return nil, err
	}
	return &World{options: o, dir: o.Dir, secret: rand.Text() + rand.Text(), apiKey: rand.Text(), harmed: map[string]bool{},
		log: slog.New(slog.NewTextHandler(o.Log, nil))}, nil
}

func (w *World) makeFolder() (err error) {
	if w.dir == "" {
		w.temporary = true
		w.dir, err = os.MkdirTemp("", "parley-chaos-")
		return err
	}
	if w.dir, err = filepath.Abs(w.dir); err != nil {
		return err
	}
	return os.MkdirAll(w.dir, 0o755)
}

// clustered reports whether the nodes' own NATS servers are a cluster.
func (w *World) clustered() bool {
	return w.options.Kind == Postgres || w.options.Kind == PostgresReplica
}

func (w *World) makeNodes() error {
	for i := range w.options.Nodes {
		n := w.newNode(i)
		w.nodes = append(w.nodes, n) // Close undoes what it has of the following.
		if err := n.furnish(); err != nil {
			return err
		}
	}
	for _, n := range w.nodes {
		n.env = w.environment(n)
	}
	return nil
}

// environment is that of a node's process. Of two variables of one name the later one counts.
func (w *World) environment(n *Node) (env []string) {
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PARLEY_") && !strings.HasPrefix(variable, "PORT=") {
			env = append(env, variable)
		}
	}
	env = append(env, "PARLEY_LISTEN="+loopback(n.port), "PARLEY_DATA="+n.Data, "PARLEY_JWT_SECRET="+w.secret, "PARLEY_API_KEY="+w.apiKey,
		"PARLEY_RATE_LIMITS=off", "PARLEY_QUOTA_SEND_MESSAGE=off", "PARLEY_QUOTA_CREATE_GROUP=off", "PARLEY_LOG_LEVEL=warn",
		"PARLEY_DATABASE_URL="+w.DatabaseURL())
	if w.nats != nil {
		env = append(env, "PARLEY_NATS_URL="+w.nats.url())
	}
	if w.clustered() {
		var routes []string
		for _, other := range w.nodes {
			if other != n {
				routes = append(routes, "nats://"+loopback(other.routePort))
			}
		}
		env = append(env, "PARLEY_CLUSTER_LISTEN="+loopback(n.routePort), "PARLEY_CLUSTER_ROUTES="+strings.Join(routes, ","))
	}
	return append(env, w.options.Env...)
}

// recover returns when all nodes are ready to which no harm is done now, but for the target that is about to be healed. Those that do
// not run are started, all at once, as an operator would.
func (w *World) recover(ctx context.Context, healed string) error {
	var starting sync.WaitGroup
	errs := make([]error, len(w.nodes))
	for i, n := range w.nodes {
		switch {
		case !w.free(healed, n.Name):
		case !w.free(healed, n.link()):
			errs[i] = n.Launch() // Whether it is ready can be asked when its link is healed.
		default:
			starting.Go(func() { errs[i] = n.Start(ctx) })
		}
	}
	starting.Wait()
	return errors.Join(errs...)
}

// Close ends everything that the world started. Nothing may be injected or healed meanwhile, or after. It may be called again.
func (w *World) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	var stopping sync.WaitGroup
	errs := make([]error, len(w.nodes))
	for i, n := range w.nodes {
		stopping.Go(func() { errs[i] = n.close() })
	}
	stopping.Wait()
	w.watching.Wait()
	if w.nats != nil {
		w.nats.stop()
	}
	if w.postgres != nil {
		w.postgres.stop()
	}
	w.log.Info("ended")
	if w.temporary {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// Kind is what the world is made of.
func (w *World) Kind() Kind { return w.options.Kind }

// Nodes are the servers, in the order of their names.
func (w *World) Nodes() []*Node { return w.nodes }

// DatabaseURL leads to the nodes' database, as PARLEY_DATABASE_URL takes it; it is empty for SQLite, which is in [Node.Data].
func (w *World) DatabaseURL() string {
	if w.postgres == nil {
		return ""
	}
	return w.postgres.url()
}

// APIKey is accepted by all nodes as X-API-Key.
func (w *World) APIKey() string { return w.apiKey }

// Exits are the ends of nodes that the world did not ask for, the oldest first.
func (w *World) Exits() []Exit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.exits)
}

// Token makes a token for user that all nodes accept for a day.
func (w *World) Token(user string) string { return bench.Token(w.secret, user) }
