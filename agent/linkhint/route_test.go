// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mustWays asks the kernel what the Watcher would find.
func (n *node) mustWays(t testing.TB, peer string) (found ways) {
	t.Helper()
	addr, tab := addrOf(peer), newTable()
	err := n.host.Do(func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		devices, err := k.devices()
		if err != nil {
			return err
		}
		for _, d := range devices {
			tab.setDevice(d, Event{})
		}
		zone, ok := tab.zoneOf(addr)
		if !ok {
			return fmt.Errorf("no zone of %v", addr)
		}
		found, err = k.ways(addr, zone)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// mustDevice reads one device by its name.
func (n *node) mustDevice(t testing.TB, name string) (found device) {
	t.Helper()
	err := n.host.Do(func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.close()
		devices, err := k.devices()
		for _, d := range devices {
			if d.name == name {
				found = d
			}
		}
		return err
	})
	if err != nil || found.index == 0 {
		t.Fatalf("device %s: %+v, %v", name, found, err)
	}
	return found
}

func TestWays(t *testing.T) {
	n := mustNode(t)
	n.mustTap(t, "t0")
	n.mustTap(t, "t1")
	n.ip(t,
		"link set t0 up", "link set t1 up",
		"address add 10.1.0.1/24 dev t0", "address add 10.2.0.1/24 dev t1",
		"address add fd01::1/64 dev t0 nodad", "address add fd02::1/64 dev t1 nodad",
		"address add fe80::7/64 dev t1 nodad",
		"route add 10.50.0.0/16 nexthop via 10.1.0.9 nexthop via 10.2.0.9",
		"route add fd50::/64 nexthop via fd01::9 nexthop via fd02::9",
		"route add unreachable 10.60.0.0/16", "route add blackhole 10.61.0.0/16",
		"route add prohibit 10.62.0.0/16", "route add throw 10.63.0.0/16",
		"route add unreachable fd60::/64", "route add blackhole fd61::/64", "route add prohibit fd62::/64",
		"route add 10.70.0.0/16 via 10.1.0.9",
		"nexthop add id 1 via 10.1.0.9 dev t0", "nexthop add id 2 via 10.2.0.9 dev t1",
		"nexthop add id 3 group 1/2", "nexthop add id 4 blackhole",
		"route add 10.80.0.0/16 nhid 3", "route add 10.81.0.0/16 nhid 4",
		"rule add to 10.90.0.0/16 table 90", "route add default via 10.2.0.9 table 90",
	)
	t0, t1 := n.mustDevice(t, "t0").index, n.mustDevice(t, "t1").index
	here, none := ways{here: true}, ways{}
	by := func(devices ...int) ways { return ways{devices: devices} }
	for _, c := range []struct {
		peer string
		want ways
	}{
		{"127.0.0.1", here}, {"127.9.9.9", here}, {"::1", here},
		{"10.1.0.1", here}, {"10.99.0.1", here}, {"fd01::1", here}, {"::ffff:10.1.0.1", here},
		{"10.1.0.255", here}, // broadcast
		{"10.1.0.5", by(t0)}, {"10.2.0.5", by(t1)}, {"::ffff:10.2.0.5", by(t1)},
		{"fd01::5", by(t0)}, {"fd02::5", by(t1)},
		{"10.70.1.1", by(t0)},
		{"10.50.1.1", by(t0, t1)}, {"fd50::1", by(t0, t1)}, {"10.80.1.1", by(t0, t1)},
		{"10.90.1.1", by(t1)},
		{"fe80::5%t0", by(t0)}, {"fe80::5%t1", by(t1)}, {fmt.Sprintf("fe80::5%%%d", t1), by(t1)},
		{"fe80::7%t1", here},
		{"192.0.2.1", none}, {"2001:db8::1", none},
		{"10.60.0.1", none}, {"10.61.0.1", none}, {"10.62.0.1", none}, {"10.63.0.1", none}, {"10.81.0.1", none},
		{"fd60::1", none}, {"fd61::1", none}, {"fd62::1", none},
	} {
		got := n.mustWays(t, c.peer)
		slices.Sort(got.devices)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(ways{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.peer, diff)
		}
	}
}

// Next-hop objects with nexthop_compat_mode off: the entry names no device.
func TestWaysByNextHopObject(t *testing.T) {
	n := mustNode(t)
	n.mustTap(t, "t0")
	n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0", "nexthop add id 1 via 10.1.0.9 dev t0", "route add 10.80.0.0/16 nhid 1")
	n.sysctl(t, "net/ipv4/nexthop_compat_mode", "0")
	want := ways{devices: []int{n.mustDevice(t, "t0").index}}
	if got := n.mustWays(t, "10.80.1.1"); !got.equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParents(t *testing.T) {
	n := mustNode(t)
	n.mustTap(t, "t0")
	n.mustTap(t, "t1")
	n.ip(t, "link add v0 type veth peer name v1", "link add br0 type bridge", "link set t1 master br0")
	t0 := n.mustDevice(t, "t0").index
	for _, c := range []struct {
		add, name string
		want      int
	}{
		{"", "v0", 0}, {"", "br0", 0}, {"", "t0", 0}, {"", "t1", 0}, {"", "eth0", 0}, {"", "lo", 0},
		{"link add link t0 name vl type vlan id 7", "vl", t0},
		{"link add link t0 name mv type macvlan", "mv", t0},
		{"link add link v0 name iv type ipvlan", "iv", n.mustDevice(t, "v0").index},
	} {
		if c.add != "" && !n.try(c.add) {
			t.Logf("not in this kernel: %s", c.add)
			continue
		}
		if got := n.mustDevice(t, c.name).parent; got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
