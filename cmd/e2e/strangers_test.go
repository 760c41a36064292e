// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// A client host is killed, and nobody else: other clients, other ports, another
// cluster on the same port at another address of the database host, other
// connections between the same hosts, listening and UDP sockets, the agent's own
// connections, the same addresses and ports in another network namespace.
func TestStrangers(t *testing.T) {
	prove(t, row{
		name: "strangers", v4Only: true, off: dryRun,
		with: func(s *setup) {
			alone(s)
			// Leaves the port free at the other cluster's address.
			s.postgres = map[string]string{"listen_addresses": "10.99.0.2"}
			s.noAgents, s.noConmgr = true, true
		},
		run: func(w *world) {
			w.agentOptions.DSN = "host=10.99.0.2 port=5432 user=postgres dbname=postgres"
			w.agent1 = w.startAgent(w.primary)
			w.cm = w.startConmgr(w.client, nil)
			w.awaitMonitored(w.cm)
			other := w.otherCluster("second", "10.99.0.200", w.primary.Port)
			otherPort := w.otherCluster("third", "10.99.0.2", 5433)
			apps := w.crowd(w.through(portPrimary))
			strangers := map[string]*crowd{
				"another client":          w.crowd(w.directly(w.db2, w.primary)),
				"another address":         w.crowd(w.at(w.client, other)),
				"another port":            w.crowd(w.at(w.client, otherPort)),
				"the database host":       w.crowd(w.directly(w.db1, w.primary)),
				"another client, address": w.crowd(w.at(w.db2, other)),
			}
			pipe := w.pipe(w.client, w.db1)
			back := w.pipe(w.db1, w.client)
			udp := w.datagrams("10.99.0.2:5432")
			twin := w.twin(apps.all()[0].conn)
			agents := w.agentSessions()
			agenttest.MustFault(w, w.client.Cut)
			w.expect("no backend of the client", func() bool { return w.living(w.primary, apps.pids()) == 0 })
			agenttest.MustFault(w, w.client.Heal)
			for what, c := range strangers {
				c.expectUntouched(what, w.timeout)
			}
			pipe.expectAlive("a connection from the client")
			back.expectAlive("a connection to the client")
			udp.expectAlive("an unconnected UDP socket")
			twin.expectAlive("the same connection in another namespace")
			if got := w.agentSessions(); got != agents || !strings.Contains(agents, " ") {
				w.failf("the agent's own sessions were %q and are %q", agents, got)
			}
			w.open(portPrimary).exec("SELECT 1") // the listening socket
			w.crowd(w.at(w.client, other)).expectUntouched("new at another address", 0)
		},
	})
}

// cluster is an instance at an address that conmgr does not know.
type cluster struct {
	*agenttest.Postgres
	addr string
}

// otherCluster starts one more cluster on db1, at an address that is added when
// db1 does not have it.
func (w *world) otherCluster(name, addr string, port uint16) cluster {
	w.Helper()
	if addr != w.db1.Addr4.String() {
		_, err := w.db1.Command(w.Context(), "ip", "address", "add", addr+"/24", "dev", "eth0").CombinedOutput()
		w.must(err)
		for _, h := range []*agenttest.Host{w.client, w.db2} {
			_, err := h.Command(w.Context(), "ip", "neighbour", "add", addr, "lladdr", w.mac(w.db1), "nud", "permanent", "dev", "eth0").CombinedOutput()
			w.must(err)
		}
	}
	return cluster{agenttest.MustPostgres(w, w.db1, agenttest.PostgresOptions{Name: name, Port: port, Listen: addr}), addr}
}

// mac is the hardware address of a host.
func (w *world) mac(h *agenttest.Host) string {
	w.Helper()
	out, err := h.Command(w.Context(), "cat", "/sys/class/net/eth0/address").Output()
	w.must(err)
	return strings.TrimSpace(string(out))
}

// at opens connections from a host to a cluster.
func (w *world) at(from *agenttest.Host, c cluster) func() *app {
	return func() *app {
		w.Helper()
		return w.openAt(from, c.addr, int(c.Port))
	}
}

// agentSessions are the pids of the agent's two sessions.
func (w *world) agentSessions() string {
	w.Helper()
	return strings.Join(agenttest.MustQuery(w, w.primary,
		"SELECT pid::text FROM pg_stat_activity WHERE application_name = 'pgwatchdog' ORDER BY pid"), " ")
}

// twin is a connection with the addresses and the ports of another one, between
// hosts of another lab.
func (w *world) twin(like *pgx.Conn) pipe {
	w.Helper()
	lab := agenttest.MustLab(w, "client", "db1")
	at := listener{w, nil, lab.Host("db1")}
	var err error
	at.Listener, err = at.on.Listen(w.Context(), "tcp", "10.99.0.2:5432")
	w.must(err)
	w.Cleanup(func() { _ = at.Close() })
	port := agenttest.MustQuery(w, w.primary, "SELECT client_port::text FROM pg_stat_activity WHERE pid = $1", like.PgConn().PID())[0]
	local, err := net.ResolveTCPAddr("tcp", "10.99.0.1:"+port)
	w.must(err)
	a, err := lab.Host("client").DialWith(w.Context(), &net.Dialer{LocalAddr: local}, "tcp", at.Addr().String())
	w.must(err)
	b, err := at.Accept()
	w.must(err)
	w.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return pipe{w, a, b}
}

// datagrams is a UDP socket of db1 that is connected to nobody.
type datagrams struct {
	w *world
	net.PacketConn
}

func (w *world) datagrams(addr string) datagrams {
	w.Helper()
	c, err := w.db1.ListenPacket(w.Context(), "udp", addr)
	w.must(err)
	w.Cleanup(func() { _ = c.Close() })
	return datagrams{w, c}
}

func (d datagrams) expectAlive(what string) {
	d.w.Helper()
	from, err := d.w.client.Dial(d.w.Context(), "udp", d.LocalAddr().String())
	d.w.must(err)
	defer from.Close()
	_ = d.SetReadDeadline(time.Now().Add(generous))
	if _, err := from.Write([]byte("live")); err != nil {
		d.w.failf("%s: %v", what, err)
	}
	if n, _, err := d.ReadFrom(make([]byte, 8)); err != nil || n != 4 {
		d.w.failf("%s: %d bytes, %v", what, n, err)
	}
}

// pipe is a connection that has nothing to do with PostgreSQL.
type pipe struct {
	w    *world
	a, b net.Conn
}

func (w *world) pipe(from, to *agenttest.Host) pipe {
	w.Helper()
	l, err := to.Listen(w.Context(), "tcp", net.JoinHostPort(to.Addr4.String(), "0"))
	w.must(err)
	defer l.Close()
	a, err := from.Dial(w.Context(), "tcp", l.Addr().String())
	w.must(err)
	b, err := l.Accept()
	w.must(err)
	w.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return pipe{w, a, b}
}

// expectAlive sends something through in both directions.
func (p pipe) expectAlive(what string) {
	p.w.Helper()
	for _, way := range [][2]net.Conn{{p.a, p.b}, {p.b, p.a}} {
		got := make([]byte, 4)
		_ = way[1].SetReadDeadline(time.Now().Add(generous))
		_, err := way[0].Write([]byte("live"))
		if err == nil {
			_, err = way[1].Read(got)
		}
		if err != nil || !bytes.Equal(got, []byte("live")) {
			p.w.failf("%s ended: %v", what, err)
		}
	}
}
