// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// ends are both ends of a connection.
type ends struct{ client, server net.Conn }

// labServer accepts connections on a host.
type labServer struct {
	t *testing.T
	net.Listener
}

func labListen(t *testing.T, h *agenttest.Host, addr string) labServer {
	t.Helper()
	l, err := h.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return labServer{t, l}
}

func (s labServer) connect(from *agenttest.Host, to netip.Addr) ends {
	s.t.Helper()
	port := s.Addr().(*net.TCPAddr).Port
	client, err := from.Dial(s.t.Context(), "tcp", net.JoinHostPort(to.String(), fmt.Sprint(port)))
	if err != nil {
		s.t.Fatal(err)
	}
	server, err := s.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return ends{client, server}
}

func (e ends) talk() error {
	if _, err := e.client.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(e.server, make([]byte, 1))
	return err
}

func (e ends) dead() bool {
	_ = e.server.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := e.server.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNABORTED)
}

// labSockets is the kernel of a host of the lab.
func labSockets(t *testing.T, h *agenttest.Host, s scope) *peerSockets {
	t.Helper()
	p := &peerSockets{
		scope: func() scope { return s },
		own:   func() []netip.AddrPort { return nil },
		heard: func(netip.Addr) mono.Instant { return 0 },
		log:   slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)),
	}
	p.dial = func() (table socketTable, err error) {
		err = h.Do(func() error {
			if err := agenttest.GuardHostNamespace(); err != nil {
				return err
			}
			table, err = sockdiag.Dial()
			return err
		})
		return table, err
	}
	t.Cleanup(p.close)
	return p
}

// TestSocketsKernel: the real kernel. The host spoke until before the verdict on
// its old connections, and is back with new ones; beside them are all those that
// a rule a little too wide would take.
func TestSocketsKernel(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	second := netip.MustParseAddr("10.99.0.200")
	if out, err := db.Command(t.Context(), "ip", "address", "add", second.String()+"/24", "dev", "eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	instance, pooler := labListen(t, db, db.Addr4.String()+":5432"), labListen(t, db, "[::]:6432")
	cluster2, heartbeat := labListen(t, db, "10.99.0.200:5432"), labListen(t, db, db.Addr4.String()+":27545")
	s := scope{
		listens: []netip.AddrPort{netip.AddrPortFrom(db.Addr4, 5432), netip.AddrPortFrom(second, 5433)},
		ports:   []uint16{6432, 27545}, heartbeat: 27545,
	}
	walsender, own := instance.connect(client, db.Addr4), instance.connect(client, db.Addr4)
	port := func(e ends) uint16 { return e.client.LocalAddr().(*net.TCPAddr).AddrPort().Port() }
	die := []ends{instance.connect(client, db.Addr4), instance.connect(client, db.Addr4), pooler.connect(client, db.Addr4)}
	live := map[string]ends{
		"walsender": walsender, "own": own, "heartbeat": heartbeat.connect(client, db.Addr4),
		"another client": instance.connect(other, db.Addr4), "another cluster": cluster2.connect(client, second),
		"another client of the pooler": pooler.connect(other, db.Addr4),
	}
	p := labSockets(t, db, s)
	p.own = func() []netip.AddrPort { return []netip.AddrPort{netip.AddrPortFrom(client.Addr4, port(own))} }
	w := Warrant{ID: 1, Addr: client.Addr4, LastValid: clock.Now(), Interval: 10 * time.Millisecond, Timeout: 30 * time.Millisecond}
	agenttest.Eventually(t, 20*time.Second, "silence of more than a tick", func() bool {
		return clock.Now().Sub(w.LastValid) > 5*kernelTick
	})
	w.Verdict = clock.Now()
	if e, err := p.LastLook(t.Context(), w); err != nil || e.HostAlive {
		t.Errorf("last look %+v, %v: want silent", e, err)
	}
	live["new"], live["new at the pooler"] = instance.connect(client, db.Addr4), pooler.connect(client, db.Addr4)

	got, err := p.Destroy(t.Context(), w, []uint16{port(walsender)})
	want := SocketsResult{Found: 3, Destroyed: 3, Spared: 2, Busy: 2, Text: "3 destroyed, 2 spared, 2 heard since the verdict"}
	if err != nil || got != want {
		t.Errorf("%+v, %v: want %+v", got, err, want)
	}
	for i, e := range die {
		if !e.dead() {
			t.Errorf("old connection %d lives", i)
		}
	}
	for name, e := range live {
		if err := e.talk(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if e, err := p.LastLook(t.Context(), w); err != nil || !e.HostAlive {
		t.Errorf("last look after new connections %+v, %v: want alive", e, err)
	}
}

// TestOwnConns knows the agent's own ends while they are open.
func TestOwnConns(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var o ownConns
	conn, err := o.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if got := o.ends(); !slices.Equal(got, []netip.AddrPort{want}) {
		t.Errorf("own ends %v: want %v", got, want)
	}
	_ = conn.Close()
	_ = conn.Close()
	if got := o.ends(); len(got) > 0 {
		t.Errorf("own ends %v after the end", got)
	}
}
