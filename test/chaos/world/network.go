package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// filtering tells why no link can be harmed here; nil: it can.
func filtering() error {
	if errIsolated != nil {
		return errIsolated
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return errors.New("it needs nft")
	}
	return nil
}

// tables numbers the tables of packet filters, of which each harm has its own.
var tables atomic.Int64

// What a link does when it is slow: a connection carries that many packets a second each way, after a first burst, and loses the others.
const (
	slowPacketsPerSecond = 20
	slowPacketsBurst     = 5
)

var (
	// cuts are shorter than any time-out of the server, and longer than those of its statements and of its writes to a client.
	cuts   = []time.Duration{2 * time.Second, 15 * time.Second}
	resets = []time.Duration{200 * time.Millisecond, 2 * time.Second}
	slows  = []time.Duration{5 * time.Second, 20 * time.Second}
)

// networkFaults harm links. The target is the link, so that a node can be killed while its clients cannot reach it.
func (w *World) networkFaults() []Fault {
	var clients []string
	for _, n := range w.nodes {
		clients = append(clients, n.link())
	}
	faults := []Fault{
		{Name: "cut", About: "A node and its clients get nothing from each other, and no notice of it.", Last: cuts, targets: clients,
			inject: w.cut(filterAll)},
		{Name: "cut-half", About: "About half of a node's client connections get nothing through.", Last: cuts, targets: clients,
			inject: w.cut(filterHalf)},
		{Name: "reset", About: "A node's client connections are reset, as are new ones.", Last: resets, targets: clients, inject: w.cut(filterReset)},
		{Name: "slow", About: "A node's client connections carry 20 packets a second each way and lose the others.", Last: slows, targets: clients,
			inject: w.cut(filterSlow)},
	}
	if w.postgres != nil {
		faults = append(faults, Fault{Name: "database-cut", About: "PostgreSQL and the nodes get nothing from each other.", Last: cuts,
			targets: []string{"link to postgres"}, inject: w.cut(filterAll)})
	}
	if w.clustered() {
		faults = append(faults, Fault{Name: "routes-cut", About: "The nodes get nothing from each other.", Last: cuts,
			targets: []string{"routes"}, inject: w.cut(filterAll)})
	}
	if w.nats != nil {
		faults = append(faults, Fault{Name: "nats-cut", About: "NATS and the nodes get nothing from each other.", Last: cuts,
			targets: []string{"link to nats"}, inject: w.cut(filterAll)})
	}
	return faults
}

// ports are what a link leads to.
func (w *World) ports(link string) []int {
	switch link {
	case "link to postgres":
		return w.postgres.ports()
	case "link to nats":
		return []int{w.nats.port}
	case "routes":
		var ports []int
		for _, n := range w.nodes {
			ports = append(ports, n.routePort)
		}
		return ports
	}
	for _, n := range w.nodes {
		if n.link() == link {
			return []int{n.port}
		}
	}
	panic("world: there is no " + link)
}

// A filter is the text of nftables rules for the packets to and from a port, nft(8). Packets that come in are filtered: to refuse one
// that goes out would be an error of its sender, which a broken network never is.
type filter func(port int, r *rand.Rand) []string

func filterAll(port int, _ *rand.Rand) []string {
	return []string{fmt.Sprintf("tcp dport %d drop", port), fmt.Sprintf("tcp sport %d drop", port)}
}

// filterHalf takes the connections with one value of a bit of the client's port. Linux gives out even ones first, so it is the next bit.
func filterHalf(port int, r *rand.Rand) []string {
	bit := 2 * r.IntN(2)
	return []string{fmt.Sprintf("tcp dport %d tcp sport & 2 == %d drop", port, bit), fmt.Sprintf("tcp sport %d tcp dport & 2 == %d drop", port, bit)}
}

// filterReset lets the resets themselves through.
func filterReset(port int, _ *rand.Rand) []string {
	const reset = "tcp flags & rst == 0 reject with tcp reset"
	return []string{fmt.Sprintf("tcp dport %d %s", port, reset), fmt.Sprintf("tcp sport %d %s", port, reset)}
}

func filterSlow(port int, _ *rand.Rand) []string {
	const over = "limit rate over %d/second burst %d packets } drop"
	limit := fmt.Sprintf(over, slowPacketsPerSecond, slowPacketsBurst)
	return []string{fmt.Sprintf("tcp dport %d update @to { tcp sport %s", port, limit), fmt.Sprintf("tcp sport %d update @from { tcp dport %s", port, limit)}
}

// cut puts a filter on the link until it is healed.
func (w *World) cut(f filter) injection {
	return func(ctx context.Context, r *rand.Rand, link string) (func(context.Context) error, error) {
		var rules []string
		for _, port := range w.ports(link) {
			rules = append(rules, f(port, r)...)
		}
		table := fmt.Sprintf("inet chaos%d", tables.Add(1))
		// One text is one transaction: all rules begin at once.
		const text = `table %s {
	set to { type inet_service; size 65535; flags dynamic; timeout 1m; }
	set from { type inet_service; size 65535; flags dynamic; timeout 1m; }
	chain input {
		type filter hook input priority filter; policy accept;
		%s
	}
}
`
		if err := nft(ctx, fmt.Sprintf(text, table, strings.Join(rules, "\n\t\t"))); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return nft(ctx, "delete table "+table+"\n") }, nil
	}
}

// nft changes the packet filters of this process's network namespace.
func nft(ctx context.Context, text string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w\n%s", err, out)
	}
	return nil
}
