// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// limit is for a machine in trouble.
const limit = 20 * time.Second

// mustIn runs the program on a host of the lab, never in the machine's own
// namespace, and checks its exit code.
func (s *session) mustIn(t *testing.T, h *agenttest.Host, want int, args ...string) {
	t.Helper()
	var exit int
	err := h.Do(func() error {
		if err := agenttest.GuardHostNamespace(); err != nil {
			return err
		}
		exit = s.run(t.Context(), args...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if exit != want {
		t.Fatalf("%s: exit %d, want %d\nstdout %s\nstderr %s", strings.Join(args, " "), exit, want, s.out, s.errs)
	}
}

// mustList returns what "sockets --json" with these options shows on a host.
func mustList(t *testing.T, h *agenttest.Host, options ...string) []socketObject {
	t.Helper()
	s := newSession(0, "")
	s.mustIn(t, h, 0, append([]string{"sockets", "--json"}, options...)...)
	return mustObjects(t, s.out.String())
}

func mustObjects(t *testing.T, lines string) []socketObject {
	t.Helper()
	var all []socketObject
	for line := range strings.Lines(lines) {
		var o socketObject
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, o)
	}
	return all
}

// peersOf are the peers of the sockets as text, in order.
func peersOf(objects []socketObject) []string {
	var peers []string
	for _, o := range objects {
		if o.PeerAddress == nil {
			peers = append(peers, "*")
			continue
		}
		peers = append(peers, netip.AddrPortFrom(*o.PeerAddress, *o.PeerPort).String())
	}
	slices.Sort(peers)
	return peers
}

// server accepts connections.
type server struct{ net.Listener }

func mustListen(t *testing.T, h *agenttest.Host, network, addr string) server {
	t.Helper()
	l, err := h.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return server{l}
}

// pair is both ends of one connection.
type pair struct{ client, server net.Conn }

// mustConnect connects to the server, which nobody else does meanwhile.
func (s server) mustConnect(t *testing.T, from *agenttest.Host, addr netip.Addr, localPort uint16) pair {
	t.Helper()
	local := from.Addr4
	if addr.Is6() {
		local = from.Addr6
	}
	port := uint16(s.Addr().(*net.TCPAddr).Port)
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, localPort)), Timeout: limit}
	client, err := from.DialWith(t.Context(), d, "tcp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), accepted.Close() })
	return pair{client, accepted}
}

// name is the client's end, as the server's kernel has it.
func (p pair) name() string { return p.client.LocalAddr().(*net.TCPAddr).AddrPort().String() }

// mustTalk proves that the connection is alive in both directions.
func (p pair) mustTalk(t *testing.T) {
	t.Helper()
	for _, way := range [][2]net.Conn{{p.client, p.server}, {p.server, p.client}} {
		_ = way[1].SetReadDeadline(time.Now().Add(limit))
		_, err1 := way[0].Write([]byte{'x'})
		_, err2 := io.ReadFull(way[1], make([]byte, 1))
		if err := errors.Join(err1, err2); err != nil {
			t.Errorf("connection %s: %v, want it alive", p.name(), err)
			return
		}
	}
}

// mustReset closes both ends, so that nothing is left of the connection.
func (p pair) mustReset(t *testing.T) {
	t.Helper()
	for _, c := range []net.Conn{p.client, p.server} {
		if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// mustBeDead wants the server's end to have been destroyed.
func (p pair) mustBeDead(t *testing.T) {
	t.Helper()
	_ = p.server.SetReadDeadline(time.Now().Add(limit))
	if _, err := p.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("connection %s: read: %v, want ECONNABORTED", p.name(), err)
	}
}

// mustTool runs a tool on a host.
func mustTool(t *testing.T, h *agenttest.Host, name string, args ...string) {
	t.Helper()
	if out, err := h.Command(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
