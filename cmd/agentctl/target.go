// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// target says which sockets are meant, of which network namespace, and which
// database knows more about them. "sockets" and "sockets kill" have it in common.
type target struct {
	peers  []netip.Prefix
	zones  []string // of the peers, as many; "" is any interface
	locals []netip.Addr
	ports  []sockdiag.PortRange
	states sockdiag.States
	netns  string // name or path; "" is the own one
	dsn    string
	joined bool // with the database of dsn, which may be empty
}

// targetFlags are the texts of a target's options.
type targetFlags struct {
	peers, locals, ports []string
	netns, dsn           string
}

func (t *targetFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&t.peers, "peer", nil, "")
	flags.StringArrayVar(&t.locals, "local", nil, "")
	flags.StringArrayVar(&t.ports, "port", nil, "")
	flags.StringVar(&t.netns, "netns", "", "")
	flags.StringVar(&t.dsn, "dsn", "", "")
}

// target checks the texts; states are the caller's.
func (t *targetFlags) target(flags *pflag.FlagSet) (target, error) {
	out := target{states: sockdiag.Killable, netns: t.netns, dsn: t.dsn, joined: flags.Changed("dsn")}
	if flags.Changed("netns") && t.netns == "" {
		return out, usageError("--netns %q: expected a name in %s or a path, as /proc/PID/ns/net", t.netns, netnsDir)
	}
	for _, text := range t.peers {
		peer, zone, err := parsePrefix("--peer", text)
		if err != nil {
			return out, err
		}
		out.peers, out.zones = append(out.peers, peer), append(out.zones, zone)
	}
	for _, text := range t.locals {
		a, err := parseAddr("--local", text, "the address of a connection, as 10.1.2.3")
		if err != nil {
			return out, err
		}
		out.locals = append(out.locals, a.WithZone("").Unmap())
	}
	var err error
	out.ports, err = parsePorts(t.ports)
	return out, err
}

// filter is the target as the kernel is asked for it. It must be called inside
// the namespace, whose interfaces the zones name.
func (t *target) filter() (sockdiag.Filter, error) {
	f := sockdiag.Filter{Peers: t.peers, Locals: t.locals, LocalPorts: t.ports, States: t.states, Info: true}
	for i, zone := range t.zones {
		if zone == "" {
			continue
		}
		scoped, err := sockdiag.PeerFilter(t.peers[i].Addr().WithZone(zone))
		if err != nil {
			return f, usageError("--peer: %w", err)
		}
		if f.Scope != 0 && f.Scope != scoped.Scope {
			return f, usageError("--peer: zones of two interfaces: expected one")
		}
		f.Scope = scoped.Scope
	}
	return f, nil
}
