// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// limit is for a machine in trouble.
const limit = 20 * time.Second

// mustDial connects to the host's socket tables. It refuses the machine's own
// namespace, so that no test can kill there.
func mustDial(t testing.TB, h *agenttest.Host) *Conn {
	t.Helper()
	var c *Conn
	err := h.Do(func() (err error) {
		if err := agenttest.GuardHostNamespace(); err != nil {
			return err
		}
		c, err = Dial()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustFind(t testing.TB, c *Conn, f Filter) []Socket {
	t.Helper()
	found, err := c.Find(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// mustDestroy wants every socket to end as given.
func mustDestroy(t testing.TB, c *Conn, sockets []Socket, want Result) {
	t.Helper()
	outcomes, err := c.Destroy(t.Context(), sockets)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if o.Result != want {
			t.Errorf("%v: %v (%v), want %v", sockets[i], o.Result, o.Err, want)
		}
	}
}

// server accepts connections and hands them out by the client's address.
type server struct {
	net.Listener
	accepted map[netip.AddrPort]net.Conn
}

func mustListen(t testing.TB, h *agenttest.Host, network, addr string) *server {
	t.Helper()
	l, err := h.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, accepted: make(map[netip.AddrPort]net.Conn)}
	t.Cleanup(func() {
		_ = s.Close()
		for _, c := range s.accepted {
			_ = c.Close()
		}
	})
	return s
}

// pair is both ends of one connection.
type pair struct{ client, server net.Conn }

// mustConnect connects to addr; a client port of 0 is any.
func (s *server) mustConnect(t testing.TB, from *agenttest.Host, local netip.AddrPort, addr string) pair {
	t.Helper()
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(local), KeepAlive: -1, Timeout: limit}
	c, err := from.DialWith(t.Context(), d, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return pair{c, s.mustAccept(t, c.LocalAddr())}
}

func (s *server) mustAccept(t testing.TB, client net.Addr) net.Conn {
	t.Helper()
	want := plain(client)
	for s.accepted[want] == nil {
		c, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.accepted[plain(c.RemoteAddr())] = c
	}
	c := s.accepted[want]
	return c
}

// plain is an address without zone and mapping.
func plain(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().WithZone("").Unmap(), ap.Port())
}

// mustTalk proves that the connection is alive in both directions.
func (p pair) mustTalk(t testing.TB) {
	t.Helper()
	if err := p.talk(); err != nil {
		t.Errorf("%v-%v: %v", p.server.LocalAddr(), p.server.RemoteAddr(), err)
	}
}

func (p pair) talk() error {
	for _, way := range [][2]net.Conn{{p.client, p.server}, {p.server, p.client}} {
		if err := way[1].SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		if _, err := way[0].Write([]byte{'x'}); err != nil {
			return err
		}
		if _, err := io.ReadFull(way[1], make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

// mustBeDead wants the server's end to have been destroyed.
func (p pair) mustBeDead(t testing.TB) {
	t.Helper()
	if err := p.server.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("read on %v-%v: %v, want ECONNABORTED", p.server.LocalAddr(), p.server.RemoteAddr(), err)
	}
}

// tcpState asks the kernel, past this package.
func tcpState(t testing.TB, c net.Conn) State {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var state State
	controlled := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = State(info.State)
		}
	})
	if err := errors.Join(controlled, err); err != nil {
		t.Fatal(err)
	}
	return state
}

// mustIP runs ip(8) inside the host, one command per line.
func mustIP(t testing.TB, h *agenttest.Host, format string, args ...any) {
	t.Helper()
	cmd := h.Command(t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(format, args...))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s", err, out)
	}
}

// peer is the filter for killing the sockets of a host on some ports.
func peer(addr netip.Addr, ports ...uint16) Filter {
	f := Filter{Peers: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, States: Killable}
	for _, p := range ports {
		f.LocalPorts = append(f.LocalPorts, Port(p))
	}
	return f
}

func at(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }

func from(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

// TestMain fails when a test leaves goroutines or descriptors.
func TestMain(m *testing.M) { os.Exit(agenttest.RunWithoutLeaks(m, os.Stderr)) }
