// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Everything that a kill could hit by mistake stands beside what it must hit:
// the danger is a filter that is a little too wide.
func TestKillsExactlyWhatIsMeant(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	// A second database host with the same addresses and ports.
	twins := agenttest.MustLab(t, "client", "other", "db")
	second := netip.MustParseAddr("10.99.0.200")
	mustIP(t, db, "address add %v/24 dev eth0", second)
	alias := netip.MustParseAddr("10.99.0.100")
	mustIP(t, client, "address add %v/24 dev eth0", alias)

	pg4 := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	pg6 := mustListen(t, db, "tcp6", at(db.Addr6, 5432))
	dual := mustListen(t, db, "tcp", "[::]:5433")
	cluster2 := mustListen(t, db, "tcp4", at(second, 5432))
	pooler := mustListen(t, db, "tcp4", at(db.Addr4, 6432))
	onClient := mustListen(t, client, "tcp4", at(client.Addr4, 5432))
	twin := mustListen(t, twins.Host("db"), "tcp4", at(db.Addr4, 5432))

	die := map[string]pair{
		"IPv4":              pg4.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432)),
		"IPv4, twin's port": pg4.mustConnect(t, client, from(client.Addr4, 33333), at(db.Addr4, 5432)),
		"IPv6":              pg6.mustConnect(t, client, from(client.Addr6, 0), at(db.Addr6, 5432)),
		"mapped":            dual.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5433)),
		"IPv6, dual stack":  dual.mustConnect(t, client, from(client.Addr6, 0), at(db.Addr6, 5433)),
	}
	live := map[string]pair{
		"other client":              pg4.mustConnect(t, other, from(other.Addr4, 0), at(db.Addr4, 5432)),
		"other client, IPv6":        pg6.mustConnect(t, other, from(other.Addr6, 0), at(db.Addr6, 5432)),
		"other client, mapped":      dual.mustConnect(t, other, from(other.Addr4, 0), at(db.Addr4, 5433)),
		"other address of client":   pg4.mustConnect(t, client, from(alias, 0), at(db.Addr4, 5432)),
		"other port":                pooler.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 6432)),
		"other cluster, same port":  cluster2.mustConnect(t, client, from(client.Addr4, 0), at(second, 5432)),
		"mapped, other local":       dual.mustConnect(t, client, from(client.Addr4, 0), at(second, 5433)),
		"db's connection to client": onClient.mustConnect(t, db, from(db.Addr4, 0), at(client.Addr4, 5432)),
		"same four-tuple elsewhere": twin.mustConnect(t, twins.Host("client"), from(client.Addr4, 33333), at(db.Addr4, 5432)),
	}
	udp, err := db.ListenPacket(t.Context(), "udp4", at(db.Addr4, 5432))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()

	c := mustDial(t, db)
	f := Filter{
		Peers: []netip.Prefix{
			netip.PrefixFrom(client.Addr4, 32), netip.PrefixFrom(client.Addr6, 128),
		},
		Locals:     []netip.Addr{db.Addr4, db.Addr6},
		LocalPorts: []PortRange{{5432, 5433}},
		States:     Killable,
	}
	found := mustFind(t, c, f)
	if len(found) != len(die) {
		t.Errorf("found %d sockets, want %d: %v", len(found), len(die), found)
	}
	mustDestroy(t, c, found, Destroyed)
	if left := mustFind(t, c, f); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	mustDestroy(t, c, found, Gone)

	for name, p := range die {
		t.Run("dies/"+name, func(t *testing.T) { p.mustBeDead(t) })
	}
	for name, p := range live {
		t.Run("lives/"+name, func(t *testing.T) { p.mustTalk(t) })
	}
	t.Run("lives/listeners", func(t *testing.T) {
		pg4.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432)).mustTalk(t)
		pg6.mustConnect(t, client, from(client.Addr6, 0), at(db.Addr6, 5432)).mustTalk(t)
		dual.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5433)).mustTalk(t)
	})
	t.Run("lives/unconnected UDP", func(t *testing.T) {
		sender, err := client.Dial(t.Context(), "udp4", at(db.Addr4, 5432))
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		if _, err := sender.Write([]byte("beat")); err != nil {
			t.Fatal(err)
		}
		if n, _, err := udp.ReadFrom(make([]byte, 8)); err != nil || n != 4 {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}

// The kernel's own machine says what ours says: nothing comes from it that the
// second look would have to throw away, and nothing is missing.
func TestKernelExecutesTheFilter(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	for port := uint16(5430); port < 5434; port++ {
		dual := mustListen(t, db, "tcp", at(netip.IPv6Unspecified(), port))
		for _, h := range []*agenttest.Host{client, other} {
			dual.mustConnect(t, h, from(h.Addr4, 0), at(db.Addr4, port))
			dual.mustConnect(t, h, from(h.Addr6, 0), at(db.Addr6, port))
		}
	}
	c := mustDial(t, db)
	all := mustFind(t, c, Filter{})
	v4, v6 := lab.Networks()
	exactly := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	tests := []struct {
		name string
		f    Filter
		want int
	}{
		{"IPv4 peer", Filter{Peers: []netip.Prefix{exactly(client.Addr4)}}, 4},
		{"IPv6 peer", Filter{Peers: []netip.Prefix{exactly(client.Addr6)}}, 4},
		{"both peers", Filter{Peers: []netip.Prefix{exactly(client.Addr4), exactly(client.Addr6)}}, 8},
		{"IPv4 network", Filter{Peers: []netip.Prefix{v4}}, 8},
		{"IPv6 network", Filter{Peers: []netip.Prefix{v6}}, 8},
		{"mapped network", Filter{Peers: mustPrefixes("::ffff:10.99.0.0/120")}, 8},
		{"listeners", Filter{States: StatesOf(Listen)}, 4},
		{"ports", Filter{LocalPorts: []PortRange{Port(5430), {5432, 5433}}, States: Killable}, 12},
		{"one port of one peer", Filter{Peers: []netip.Prefix{exactly(other.Addr4)}, LocalPorts: []PortRange{Port(5431)}}, 1},
		{"local address", Filter{Locals: []netip.Addr{db.Addr4}, Peers: []netip.Prefix{v4, v6}}, 8},
		{"all parts", Filter{
			Locals: []netip.Addr{db.Addr6, db.Addr4}, Peers: []netip.Prefix{exactly(other.Addr6), exactly(client.Addr4)},
			LocalPorts: []PortRange{Port(1), {5430, 5431}}, States: Killable,
		}, 4},
		{"nobody", Filter{Peers: mustPrefixes("192.0.2.0/24")}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := tt.f.normal()
			if err != nil {
				t.Fatal(err)
			}
			program, err := f.program()
			if err != nil {
				t.Fatal(err)
			}
			got, want := make(map[uint64]string), make(map[uint64]string)
			err = c.lanes[0].dump(t.Context(), dumpRequest(f.States, false, program), func(s *Socket) error {
				got[s.Cookie] = s.String()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				if f.match(&s) {
					want[s.Cookie] = s.String()
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || len(got) != tt.want {
				t.Errorf("%d sockets, want %d (-ours +kernel):\n%s", len(got), tt.want, diff)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	for range 3 * batchSize {
		pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	}
	c := mustDial(t, db)
	found := mustFind(t, c, peer(client.Addr4, 5432))
	if len(found) != 3*batchSize {
		t.Fatalf("found %d", len(found))
	}
	var destroyed, gone atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			outcomes, err := c.Destroy(t.Context(), found)
			if err != nil {
				t.Error(err)
			}
			for _, o := range outcomes {
				switch o.Result {
				case Destroyed:
					destroyed.Add(1)
				case Gone:
					gone.Add(1)
				default:
					t.Errorf("outcome %v", o)
				}
			}
			if left, err := c.Find(t.Context(), peer(client.Addr4, 5432)); err != nil || len(left) != 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
	group.Wait()
	if n := int64(len(found)); destroyed.Load() != n || gone.Load() != 3*n {
		t.Errorf("destroyed %d, gone %d; want %d and %d: each socket is destroyed once", destroyed.Load(), gone.Load(), n, 3*n)
	}
}

func TestMappedSocketKeepsItsFamily(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	dual := mustListen(t, db, "tcp", "[::]:5432")
	p := dual.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	c := mustDial(t, db)
	found := mustFind(t, c, peer(client.Addr4))
	if len(found) != 1 || found[0].Family != IPv6 || found[0].Local != from(db.Addr4, 5432) || found[0].Remote != plain(p.client.LocalAddr()) {
		t.Fatalf("found %+v", found)
	}
	mustDestroy(t, c, found, Destroyed)
	p.mustBeDead(t)
}

// Between find and destroy the client's port was used again.
func TestReusedFourTupleLives(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	local := from(client.Addr4, 40000)
	c := mustDial(t, db)

	old := pg.mustConnect(t, client, local, at(db.Addr4, 5432))
	stale := mustFind(t, c, peer(client.Addr4, 5432))
	for _, end := range []net.Conn{old.client, old.server} {
		if err := end.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := end.Close(); err != nil {
			t.Fatal(err)
		}
	}
	delete(pg.accepted, local)
	fresh := pg.mustConnect(t, client, local, at(db.Addr4, 5432))
	now := mustFind(t, c, peer(client.Addr4, 5432))
	if len(stale) != 1 || len(now) != 1 || stale[0].Remote != now[0].Remote || stale[0].Cookie == now[0].Cookie {
		t.Fatalf("not the same four-tuple of two sockets: %+v and %+v", stale, now)
	}
	mustDestroy(t, c, stale, Gone)
	fresh.mustTalk(t)
	mustDestroy(t, c, now, Destroyed)
	fresh.mustBeDead(t)
}

// A connection that came after the dump is not killed with it.
func TestNewConnectionLives(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	c := mustDial(t, db)
	old := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	found := mustFind(t, c, peer(client.Addr4, 5432))
	fresh := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	mustDestroy(t, c, found, Destroyed)
	old.mustBeDead(t)
	fresh.mustTalk(t)
}

// The same link-local address on two cables is two hosts.
func TestLinkLocalNeedsItsScope(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	mustIP(t, db, `link add eth1 type veth peer name eth1 netns %s
		link set eth1 addrgenmode none
		link set eth1 up
		address add fe80::2/64 dev eth0 nodad
		address add fe80::2/64 dev eth1 nodad`, client.Namespace())
	mustIP(t, client, `link set eth1 addrgenmode none
		link set eth1 up
		address add fe80::1/64 dev eth0 nodad
		address add fe80::1/64 dev eth1 nodad`)
	pg := mustListen(t, db, "tcp6", "[::]:5432")
	connect := func(dev string, port uint16) pair {
		zone := mustIndex(t, client, dev)
		return pg.mustConnect(t, client, from(netip.MustParseAddr("fe80::1%"+zone), port), "[fe80::2%"+zone+"]:5432")
	}
	die, live := connect("eth0", 40000), connect("eth1", 40001)
	c := mustDial(t, db)
	var f Filter
	if err := db.Do(func() (err error) {
		f, err = PeerFilter(netip.MustParseAddr("fe80::1%eth0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.States = Killable
	if all := mustFind(t, c, Filter{Peers: f.Peers, States: Killable}); len(all) != 2 {
		t.Fatalf("without a scope: %v, want both", all)
	}
	f.Locals = []netip.Addr{netip.MustParseAddr("fe80::2")}
	found := mustFind(t, c, f)
	if len(found) != 1 || found[0].Interface != f.Scope || found[0].Remote.Port() != 40000 {
		t.Fatalf("found %+v, want the one on interface %d", found, f.Scope)
	}
	wrong := found[0]
	wrong.Interface++
	mustDestroy(t, c, []Socket{wrong}, Gone)
	mustDestroy(t, c, found, Destroyed)
	die.mustBeDead(t)
	live.mustTalk(t)
}

// mustIndex returns the interface's index in the host: package net remembers
// names across namespaces.
func mustIndex(t *testing.T, h *agenttest.Host, dev string) (index string) {
	t.Helper()
	if err := h.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err == nil {
			index = strconv.Itoa(ifi.Index)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return index
}

// Only what can be killed is: the rest is shown, and refused.
func TestOtherStatesAreShownAndRefused(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	half := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	orphan := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	c := mustDial(t, db)

	if err := half.client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	agenttest.MustFault(t, client.Cut)
	if _, err := orphan.server.Write([]byte("unacknowledged")); err != nil {
		t.Fatal(err)
	}
	if err := orphan.server.Close(); err != nil {
		t.Fatal(err)
	}
	delete(pg.accepted, plain(orphan.client.LocalAddr()))
	states := func() (set States) {
		for _, s := range mustFind(t, c, Filter{LocalPorts: []PortRange{Port(5432)}}) {
			set |= StatesOf(s.State)
		}
		return set
	}
	want := StatesOf(Listen, CloseWait, FinWait1)
	agenttest.Eventually(t, limit, "the states "+want.String(), func() bool { return states() == want })
	all := mustFind(t, c, Filter{LocalPorts: []PortRange{Port(5432)}})
	outcomes, err := c.Destroy(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		want := Refused
		if all[i].State == CloseWait {
			want = Destroyed
		}
		if o.Result != want {
			t.Errorf("%v: %v, want %v", all[i], o, want)
		}
	}
	if got, want := states(), StatesOf(Listen, FinWait1); got != want {
		t.Errorf("left: %v, want %v", got, want)
	}
	if state := tcpState(t, half.server); state != Close {
		t.Errorf("the one in CLOSE_WAIT is %v", state)
	}
}

func TestWithoutTheCapability(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	p := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	var outcomes []Outcome
	err := db.Do(func() error {
		if err := errors.Join(agenttest.GuardHostNamespace(), agenttest.Capabilities(0).KeepOnly()); err != nil {
			return err
		}
		c, err := Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		f := peer(client.Addr4, 5432)
		f.Info = true
		found, err := c.Find(t.Context(), f)
		if err != nil || len(found) != 1 || found[0].Info == nil {
			t.Errorf("found %+v, %v; want one with its figures", found, err)
		}
		outcomes, err = c.Destroy(t.Context(), found)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Result != NotPermitted || !errors.Is(o.Err, ErrNotPermitted) || !errors.Is(o.Err, syscall.EPERM) {
			t.Errorf("outcome %v, want not permitted", o)
		}
	}
	p.mustTalk(t)
}

// What this kernel says for a protocol that nobody serves is what ErrNotSupported
// is made of.
func TestProtocolThatNobodyServes(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	c := mustDial(t, lab.Host("db"))
	for _, f := range []Family{IPv4, IPv6} {
		request := make([]byte, requestLen)
		request[0], request[1] = uint8(f), 253 // for experiments
		_, err := c.lanes[0].nl.Execute(netlink.Message{
			Header: netlink.Header{Type: 20, Flags: netlink.Request | netlink.Dump}, // SOCK_DIAG_BY_FAMILY
			Data:   request,
		})
		if err = dumpError(err); !errors.Is(err, ErrNotSupported) || !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%v: %v, want ErrNotSupported because of ENOENT", f, err)
		}
	}
	mustFind(t, c, Filter{})
}

func TestDialNamespace(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	ns, err := os.Open("/run/netns/" + db.Namespace())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	inside, err := DialNamespace(int(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	outside, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	if found := mustFind(t, inside, peer(client.Addr4, 5432)); len(found) != 1 {
		t.Errorf("inside: %v, want one", found)
	}
	if found := mustFind(t, outside, peer(client.Addr4, 5432)); len(found) != 0 {
		t.Errorf("outside: %v, want none", found)
	}
	if _, err := DialNamespace(0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("namespace 0: %v, want EBADF", err)
	}
}
