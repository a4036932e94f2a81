package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"parley/internal/sqldb"
)

// Memory is looked at so often, and given back after two quiet looks if it has grown by so much since it was last.
const (
	memoryLook  = 5 * time.Second
	memoryGrown = 32 << 20
	memoryQuiet = 8 << 20 // allocated between two looks
)

// giveBackMemory has the operating system have what a storm took, such as ten thousand clients that sign in together: its
// garbage, which a quiet process does not collect for two minutes, stacks that have grown, and caches of the database. It
// returns when ctx ends.
func giveBackMemory(ctx context.Context, db *sqldb.DB) {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	samples := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	look := func() (held, allocated uint64) {
		metrics.Read(samples)
		return samples[0].Value.Uint64() - samples[1].Value.Uint64(), samples[2].Value.Uint64()
	}
	least, before := look()
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		held, allocated := look()
		if quiet++; allocated-before > memoryQuiet {
			quiet = 0
		}
		before = allocated
		if least = min(least, held); quiet < 2 || held-least < memoryGrown {
			continue
		}
		db.Trim(ctx)
		debug.FreeOSMemory() // it collects, too
		debug.FreeOSMemory() // a second time halves the stacks again that are hardly used
		least, before = look()
	}
}
