// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// scope is where sockets of the instance's clients can be.
type scope struct {
	// listens are the addresses and the port that the instance was told to listen
	// on, names resolved; 0.0.0.0 and :: stand for all of their family.
	listens []netip.AddrPort
	// ports are watchdog.ports: at every local address.
	ports []uint16
	// heartbeat is watchdog.port, which is never touched.
	heartbeat uint16
}

// reach is the part of a scope that is really there: configured addresses that a
// socket listens on. PostgreSQL goes on when it cannot bind one of several
// addresses, and another cluster may have it.
type reach struct {
	listeners []sockdiag.Socket
	ports     []uint16
}

// listenFilter asks for everybody who listens on the instance's port.
func (s scope) listenFilter() sockdiag.Filter {
	f := sockdiag.Filter{States: sockdiag.StatesOf(sockdiag.Listen)}
	for _, a := range s.listens {
		if r := sockdiag.Port(a.Port()); !slices.Contains(f.LocalPorts, r) {
			f.LocalPorts = append(f.LocalPorts, r)
		}
	}
	return f
}

// reach compares the scope with the sockets that listen.
func (s scope) reach(listening []sockdiag.Socket) reach {
	var r reach
	for _, l := range listening {
		configured := slices.ContainsFunc(s.listens, func(a netip.AddrPort) bool {
			return a.Port() == l.Local.Port() && bareAddr(a.Addr()) == l.Local.Addr()
		})
		if configured && l.Local.Port() != s.heartbeat {
			r.listeners = append(r.listeners, l)
		}
	}
	for _, p := range s.ports {
		if p != s.heartbeat {
			r.ports = append(r.ports, p)
		}
	}
	return r
}

func (r reach) empty() bool { return len(r.listeners) == 0 && len(r.ports) == 0 }

// filter narrows what the kernel returns of a peer's sockets; covers decides.
func (r reach) filter(peer sockdiag.Filter) sockdiag.Filter {
	f := peer
	everywhere := len(r.ports) > 0
	for _, l := range r.listeners {
		f.LocalPorts = append(f.LocalPorts, sockdiag.Port(l.Local.Port()))
		everywhere = everywhere || l.Local.Addr().IsUnspecified()
	}
	for _, p := range r.ports {
		f.LocalPorts = append(f.LocalPorts, sockdiag.Port(p))
	}
	if everywhere {
		return f
	}
	for _, l := range r.listeners {
		f.Locals = append(f.Locals, l.Local.Addr())
	}
	return f
}

// covers reports whether a socket is a connection that the instance, or a pooler
// before it, has accepted.
func (r reach) covers(s *sockdiag.Socket) bool {
	return slices.Contains(r.ports, s.Local.Port()) || r.ofInstance(s)
}

// ofInstance reports whether the instance itself has accepted the connection. A
// listener at :: has mapped IPv4 clients, too, or none (IPV6_V6ONLY): either way
// its sockets are of its own family.
func (r reach) ofInstance(s *sockdiag.Socket) bool {
	return slices.ContainsFunc(r.listeners, func(l sockdiag.Socket) bool {
		here := l.Local.Addr() == s.Local.Addr() || l.Local.Addr().IsUnspecified() && l.Family == s.Family
		return here && l.Local.Port() == s.Local.Port() && (l.Interface == 0 || l.Interface == s.Interface)
	})
}
