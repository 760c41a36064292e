// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Effect is when a fault took effect: not before Before, not after After.
type Effect struct {
	Before, After mono.Instant
}

// timed runs a fault between two looks at the clock.
func timed(f func() error) (e Effect, err error) {
	e.Before = clock.Now()
	err = f()
	e.After = clock.Now()
	return e, err
}

// writeHooks appends the host's empty chains and its counters to a table of
// the netdev family. "from" sees what the host has sent, "to" what it is about
// to receive.
func (h *Host) writeHooks(b *strings.Builder) {
	for _, hook := range []struct{ direction, name string }{{"from", "ingress"}, {"to", "egress"}} {
		fmt.Fprintf(b, "counter %s-%s {}\n", hook.direction, h.Name)
		fmt.Fprintf(b, "chain %s-%s { type filter hook %s device %q priority 0; }\n",
			hook.direction, h.Name, hook.name, h.port())
	}
}

// drop replaces the host's rules: what matches (empty: everything) is counted
// and dropped; "-" drops nothing.
func (h *Host) drop(ctx context.Context, from, to string) (Effect, error) {
	return h.setRules(ctx, h.countedDrop("from", from), h.countedDrop("to", to))
}

// countedDrop returns the rules that count and drop each match; "-" is none.
func (h *Host) countedDrop(direction string, matches ...string) (rules []string) {
	for _, match := range matches {
		if match != "-" {
			rules = append(rules, fmt.Sprintf("%s counter name %s-%s drop", match, direction, h.Name))
		}
	}
	return rules
}

// setRules replaces the rules of the host's chains in one nftables transaction.
func (h *Host) setRules(ctx context.Context, from, to []string) (Effect, error) {
	var b strings.Builder
	for _, chain := range []struct {
		direction string
		rules     []string
	}{{"from", from}, {"to", to}} {
		name := chain.direction + "-" + h.Name
		fmt.Fprintf(&b, "flush chain netdev lab %s\n", name)
		for _, rule := range chain.rules {
			fmt.Fprintf(&b, "add rule netdev lab %s %s\n", name, rule)
		}
	}
	return timed(func() error { return h.lab.onSwitch(ctx, b.String(), "nft", "-f", "-") })
}

// Cut is silent death: no packet leaves the host's cable or arrives, in both
// directions, and nobody is told. Loopback goes on.
func (h *Host) Cut(ctx context.Context) (Effect, error) { return h.drop(ctx, "", "") }

// CutIn makes the host deaf: what it sends still arrives elsewhere.
func (h *Host) CutIn(ctx context.Context) (Effect, error) { return h.drop(ctx, "-", "") }

// CutOut makes the host mute: it still hears the others.
func (h *Host) CutOut(ctx context.Context) (Effect, error) { return h.drop(ctx, "", "-") }

// DropPort drops TCP and UDP packets from or to a port in both directions and
// nothing else: a path that loses heartbeats, or a firewall's mistake.
func (h *Host) DropPort(ctx context.Context, port uint16) (Effect, error) {
	return h.DropMatching(ctx, ofPort("{ tcp, udp }", port)...)
}

// DropMatching drops in both directions what any of the expressions of nft
// matches, and nothing else.
func (h *Host) DropMatching(ctx context.Context, matches ...string) (Effect, error) {
	return h.setRules(ctx, h.countedDrop("from", matches...), h.countedDrop("to", matches...))
}

// ofPort matches packets from or to a port.
func ofPort(protocol string, port uint16) []string {
	return []string{
		fmt.Sprintf("meta l4proto %s th sport %d", protocol, port),
		fmt.Sprintf("meta l4proto %s th dport %d", protocol, port),
	}
}

// Heal ends every fault made of dropped packets. The counters stay.
func (h *Host) Heal(ctx context.Context) (Effect, error) { return h.drop(ctx, "-", "-") }

// Dropped is how many packets the faults have dropped since the lab began.
type Dropped struct {
	In, Out uint64 // towards the host, from the host
}

// Dropped reads the counters of the host's faults.
func (h *Host) Dropped(ctx context.Context) (Dropped, error) {
	var text string
	err := h.lab.owner.call(func() (err error) {
		text, err = runTool(ctx, "", "nft", "-j", "list", "counters", "table", "netdev", "lab")
		return err
	})
	if err != nil {
		return Dropped{}, err
	}
	return h.parseCounters(text)
}

func (h *Host) parseCounters(text string) (d Dropped, err error) {
	var list struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets uint64
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return d, fmt.Errorf("counters of nft: %w", err)
	}
	found := 0
	for _, object := range list.Nftables {
		switch object.Counter.Name {
		case "to-" + h.Name:
			d.In = object.Counter.Packets
			found++
		case "from-" + h.Name:
			d.Out = object.Counter.Packets
			found++
		}
	}
	if found != 2 {
		return d, fmt.Errorf("counters of nft: %d of host %s, expected 2", found, h.Name)
	}
	return d, nil
}

// Unplug takes the cable out: the host's eth0 loses its carrier, and nothing passes.
// When the host is told of it depends on its device, see [Options].
func (h *Host) Unplug(context.Context) (Effect, error) {
	if h.cable != nil {
		return timed(func() error { return h.cable.setPlugged(false) })
	}
	return h.setPort(h.lab.links.LinkSetDown)
}

// Plug puts the cable in again and returns when packets pass.
func (h *Host) Plug(ctx context.Context) (Effect, error) {
	e, err := h.plug()
	if err != nil {
		return e, err
	}
	err = h.waitForwarding(ctx)
	e.After = clock.Now()
	return e, err
}

func (h *Host) plug() (Effect, error) {
	if h.cable != nil {
		return timed(func() error { return h.cable.setPlugged(true) })
	}
	return h.setPort(h.lab.links.LinkSetUp)
}

// forwarding is BR_STATE_FORWARDING (if_bridge.h) as sysfs shows it.
const forwarding = "3\n"

// waitForwarding waits until both ends of the cable have taken notice of it:
// the bridge forwards from its port, and eth0 is operational. The kernel does
// that a moment after the link is up (link_watch.c).
func (h *Host) waitForwarding(ctx context.Context) error {
	port := "/sys/class/net/" + h.port() + "/brport/state"
	err := h.lab.owner.do(func() error { return waitFile(ctx, port, forwarding) })
	if err != nil {
		return err
	}
	// A tap that never lost its carrier is "unknown", which serves as well.
	return h.Do(func() error { return waitFile(ctx, "/sys/class/net/eth0/operstate", "up\n", "unknown\n") })
}

// waitFile waits until a file of the kernel has one of the contents.
func waitFile(ctx context.Context, path string, contents ...string) error {
	return poll(ctx, 5*time.Second, fmt.Sprintf("%s = %q", path, contents), func() (bool, error) {
		text, err := os.ReadFile(path)
		return slices.Contains(contents, string(text)), err
	})
}

func (h *Host) setPort(set func(netlink.Link) error) (Effect, error) {
	link, err := h.lab.links.LinkByName(h.port())
	if err != nil {
		return Effect{}, fmt.Errorf("port %s: %w", h.port(), err)
	}
	return timed(func() error { return set(link) })
}

// Freeze stops every process of the host, as a paused virtual machine does;
// the kernel of the host still answers the network, so add Cut for a machine
// that is gone. It returns when all are stopped.
func (h *Host) Freeze(ctx context.Context) (Effect, error) {
	return timed(func() error { return h.cgroup.freeze(ctx, true) })
}

// Thaw ends Freeze.
func (h *Host) Thaw(ctx context.Context) (Effect, error) {
	return timed(func() error { return h.cgroup.freeze(ctx, false) })
}
