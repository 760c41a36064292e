// SPDX-License-Identifier: Apache-2.0

// Package agenttest is the laboratory that tests, demonstrations and
// benchmarks run in: hosts as network namespaces on a bridge, real PostgreSQL,
// faults injected from outside our processes, and honest skips.
//
//	            switch (a namespace of its own, nothing in the root one)
//	   +------------------------- br0 -------------------------+
//	   |                           |                           |
//	p-client                     p-db1                       p-db2     <- faults:
//	   |                           |                           |          drop, unplug
//	 eth0 10.99.0.1              eth0 10.99.0.2              eth0 10.99.0.3
//	      fd99::1                     fd99::2                     fd99::3
//	   client                       db1                         db2    <- one namespace
//	                                                                      and one cgroup each
//
// Packets are dropped on the switch's side of a cable (nftables, hooks ingress
// and egress of the netdev family), after they have left the host. A drop in
// the host's own output hook would return EPERM to the sender of a datagram,
// and a dead host tells nothing. For the same reason neighbour entries are
// permanent: no EHOSTUNREACH after three seconds ends a silence that a router
// would not have ended.
//
// The kernel announces the losses of carrier of all its devices at most once per
// second, but those of a veth at once. A host that is to meet this throttle gets a
// tap device as eth0 (Options.Tap), whose frames the lab's process carries to a
// second one at the port, and Lab.Throttle begins the second on purpose.
//
// The core takes a context and returns errors, so that programs can use it;
// the functions that start with Must take a testing.TB, fail the test and
// register the clean-up. A lab needs root, Linux 5.16 (netdev egress hook), ip,
// nft and a writable cgroup2 hierarchy: see NeedLab.
//
// Nothing survives its owner: each lab is recorded under /run with the pid and
// start time of the process that made it, and the next lab on the machine ends
// whatever a dead owner left.
package agenttest
