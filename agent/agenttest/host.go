// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Host is one machine of a lab: a network namespace with lo and eth0, and a
// control group that holds all its processes. Its methods may be called
// concurrently.
type Host struct {
	// Name is the name given to New.
	Name string
	// Addr4 and Addr6 are the addresses of eth0.
	Addr4, Addr6 netip.Addr

	lab    *Lab
	number int // from 1
	space  *space
	cgroup cgroup
	cable  *cable // nil: eth0 is a veth, whose other end is the port
}

func newHost(l *Lab, number int, name string) *Host {
	return &Host{
		Name: name, lab: l, number: number,
		Addr4: netip.AddrFrom4([4]byte{10, 99, 0, byte(number)}),
		Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 15: byte(number)}),
	}
}

// Lab returns the lab that the host belongs to.
func (h *Host) Lab() *Lab { return h.lab }

// Namespace is the host's name for ip-netns(8).
func (h *Host) Namespace() string { return h.lab.record.ID + "-" + h.Name }

// Cgroup is the directory of the host's control group.
func (h *Host) Cgroup() string { return filepath.Join(h.lab.record.Cgroup, h.Name) }

func (h *Host) port() string { return "p-" + h.Name }

func (h *Host) mac() string { return fmt.Sprintf("02:99:00:00:00:%02x", h.number) }

// addPort makes the switch's end of the cable, by itself or by what it adds to the
// commands for ip(8).
func (h *Host) addPort(links *strings.Builder) error {
	if h.cable != nil {
		return h.cable.addPort(h.lab.owner, h.port())
	}
	fmt.Fprintf(links, "link add %s type veth peer name eth0 address %s netns %s\n", h.port(), h.mac(), h.Namespace())
	return nil
}

// build makes the control group and configures the namespace's interfaces.
func (h *Host) build(ctx context.Context) (err error) {
	if h.cgroup, err = makeCgroup(h.Cgroup()); err != nil {
		return err
	}
	if h.space, err = openSpace(h.Namespace()); err != nil {
		return err
	}
	var b strings.Builder
	if h.cable != nil {
		if err := h.cable.plugIn(h.space); err != nil {
			return err
		}
		fmt.Fprintf(&b, "link set eth0 address %s\n", h.mac())
	}
	b.WriteString("link set lo up\nlink set eth0 addrgenmode none\n")
	fmt.Fprintf(&b, "address add %v/24 dev eth0\naddress add %v/64 dev eth0 nodad\nlink set eth0 up\n", h.Addr4, h.Addr6)
	for _, peer := range h.lab.hosts {
		if peer != h {
			for _, addr := range []netip.Addr{peer.Addr4, peer.Addr6} {
				fmt.Fprintf(&b, "neighbour add %v lladdr %s dev eth0 nud permanent\n", addr, peer.mac())
			}
		}
	}
	return h.space.call(func() error {
		_, err := runTool(ctx, b.String(), "ip", "-batch", "-")
		return err
	})
}

// Do runs f on a thread of its own inside the host's namespaces, for as long
// as f takes, and returns its error. Sockets that f opens stay in the host.
// Goroutines that f starts do not run inside, and processes that it starts are
// not in the host's control group: use Command and Start for those.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// Dial connects from inside the host. The address must be numeric.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.DialWith(ctx, new(net.Dialer), network, addr)
}

// DialWith connects from inside the host with the caller's dialer.
func (h *Host) DialWith(ctx context.Context, d *net.Dialer, network, addr string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen opens a stream listener inside the host.
func (h *Host) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket inside the host.
func (h *Host) ListenPacket(ctx context.Context, network, addr string) (c net.PacketConn, err error) {
	err = h.Do(func() error {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, addr)
		return err
	})
	return c, err
}

// Mkdir makes a directory of the host's, mode 0700, that belongs to a system
// user (empty: root), and returns its path.
func (h *Host) Mkdir(owner string, elem ...string) (string, error) {
	path := filepath.Join(append([]string{h.lab.Dir, h.Name}, elem...)...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", err
	}
	if owner == "" {
		return path, nil
	}
	uid, gid, err := lookupUser(owner)
	if err != nil {
		return "", err
	}
	return path, os.Chown(path, int(uid), int(gid))
}

func lookupUser(name string) (uid, gid uint32, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid64, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user %s: uid %w", name, err)
	}
	gid64, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user %s: gid %w", name, err)
	}
	return uint32(uid64), uint32(gid64), nil
}
