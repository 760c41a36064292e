// SPDX-License-Identifier: Apache-2.0

// Package sockdiag finds TCP sockets by their peer and kills them, with the
// kernel's NETLINK_SOCK_DIAG interface (net/ipv4/inet_diag.c).
//
//	find -> destroy -> find -> destroy ... until find returns none
//
// [Conn.Find] asks the kernel with a [Filter] that the kernel itself executes,
// and needs no right. The answer is read whole before it returns, so nothing is
// destroyed while a dump goes on. Two facts of inet_diag make one look too few:
// a dump never sets NLM_F_DUMP_INTR, and one that is resumed inside a hash chain
// can skip sockets that have moved meanwhile. Callers look again until nothing
// is left, and bound how often.
//
// [Conn.Destroy] sends SOCK_DESTROY for exactly the sockets it is given. Each is
// named by its cookie, a number that the kernel gives to one socket once: a
// four-tuple that was used again between the two steps is another socket, and
// lives. The owner of a destroyed socket wakes with ECONNABORTED from whatever
// it is blocked in; a peer that can still be reached gets a reset.
//
// Only ESTABLISHED and CLOSE_WAIT sockets are ever destroyed. Kernels before
// 6.11 (fix bac76cf89816) leave an orphan in FIN_WAIT1 for ever when it is
// destroyed, listening sockets belong to everybody, and the rest goes by itself.
//
// A dual-stack listener's IPv4 clients are AF_INET6 sockets with mapped
// addresses (::ffff:192.0.2.1). They are found by their IPv4 address and shown
// with it; [Socket.Family] tells what they are.
//
// Everything is per network namespace: a Conn sees that of the thread that
// called [Dial], or the one given to [DialNamespace].
//
// Destroying requires Linux 4.5 with CONFIG_INET_DIAG_DESTROY and CAP_NET_ADMIN
// in the user namespace that owns the network namespace.
package sockdiag
