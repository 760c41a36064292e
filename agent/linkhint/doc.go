// SPDX-License-Identifier: Apache-2.0

// Package linkhint tells when the link that leads to a peer is lost, in
// milliseconds instead of after the silence of a timeout. A hint is no proof: it
// makes a session ask (heartbeat.Machine.LinkLost), and only silence ends it.
//
// # Why four sources
//
// The kernel announces a loss of carrier on rtnetlink at most once per second for
// all devices of the machine together, of all network namespaces
// (net/core/link_watch.c): the second loss within a second comes up to a second
// late. The sources, best first; a [Watcher] uses the first that works and
// rtnetlink beside it, and says once why a better one is missing:
//
//	fentry      BPF on entry of netif_carrier_off and netif_carrier_on. Kernel
//	            timestamps. CAP_BPF and CAP_PERFMON, BTF, ftrace direct calls.
//	kprobe      the same program on kprobes. CAP_BPF and CAP_PERFMON, CONFIG_KPROBES;
//	            CAP_SYS_ADMIN where kernel.perf_event_paranoid is above 2 (Debian).
//	counter     pread of /sys/class/net/IF/carrier_changes (Linux 3.15, no lock, no
//	            right), every 5 ms, only of devices on the way to a watched peer.
//	rtnetlink   RTM_NEWLINK and RTM_DELLINK: every loss on purpose, and each other
//	            one that no better source has told before.
//
// # Parts
//
//	fentry, kprobe (BPF ring buffer) --+
//	counter (5 ms)                   --+--> Watcher ---> table ---> Path changes
//	rtnetlink: links                 --+      |           ^
//	rtnetlink: routes, addresses, rules ------+- look-ups-+
//
// The table is pure: it holds the devices and the way to each peer, and answers a
// change of either with the paths that became lost or came back. The Watcher owns
// the sockets, maps and files, and one goroutine that does all of it. A loss that a
// source hints at is confirmed with one RTM_GETLINK (IFF_LOWER_UP; operstate and
// IFF_RUNNING are throttled on old kernels). Whatever overruns (ring buffer,
// netlink socket) is answered by reading all again. The table gets nothing but
// what the kernel has answered to a look: messages and events are only the reason
// for one, so that a late one changes nothing and two of the same tell once.
//
// # The way to a peer
//
// What the routing table says (RTM_GETROUTE with RTM_F_FIB_MATCH), looked up anew
// after changes of routes, next hops, rules, addresses and devices. Rules that go by
// a mark, a port or the sender's address are seen as an ordinary connection of this
// process meets them.
//
//   - a peer on this host (loopback, an own address) has no link: never lost
//   - a bridge, a bond or a tunnel counts as itself: what happens to its ports, or
//     to the device that it sends by, is its matter
//   - vlan, macvlan, ipvlan and macsec need the device below as well, where that is
//     in this namespace: the kernel takes their own carrier away only after the
//     throttle
//   - ECMP: lost when none of the next hops has a link
//   - a link-local address: the device of its zone
//
// # States of a path
//
//	        no carrier                   carrier
//	Good ----------------> Lost      <--------------> Off
//	 ^  ^                   |                          |
//	 |  +--- carrier, or another route ----------------+
//	 +--- device up again, route back ---
//
// Lost: no way is good, and one has a device without a carrier. Off: a device is
// down or gone on every way, or there is no route: somebody did it on purpose, and
// a session waits its full timeout. On one way the lowest device that is not good
// decides: those above lose their carrier when it is set down.
package linkhint
