// SPDX-License-Identifier: Apache-2.0

// Package peer drives heartbeat machines: it owns the sockets, the timers and
// the clock of all heartbeat sessions of a daemon, and nothing else does.
//
// One [Loop] goroutine does everything: an epoll set for the sockets, a timerfd
// on the boot-time clock for the earliest timer, and an eventfd for functions
// that other goroutines post with [Loop.Do]. There is no goroutine per session.
// All sockets are non-blocking, so a peer that never reads cannot hold the loop:
// what does not fit into its socket is dropped, newest first, and its silence is
// judged like any other.
//
// Frames travel over TCP or UDP, with or without keys (agent/key); a [Session]
// looks the same over all of them. On UDP a stranger gets a cookie and leaves no
// trace before it has come back; the sockets of a [Listener] are shared by all its
// sessions, and datagrams move in batches, sent at the end of the pass.
//
// One pass of the loop, in this order:
//
//  1. sleep until an input, a timer or a posted function (epollSet)
//  2. read the clock: this is the instant by which the pass judges. When it is
//     later than the timer by more than a quarter of a session's timeout, that
//     session is told so (Machine.Paused)
//  3. read every readable socket to its end
//  4. run the posted functions
//  5. weigh the fuse, then tick the machines that are due at the pass's instant
//
// A loop with thousands of sessions keeps its passes up to three milliseconds apart.
//
// So whatever had arrived before the instant by which a peer is judged has been
// read. A pass that is held up between 2 and 5 judges by the old instant; what it
// missed is lateness of the next pass.
//
// conmgr uses [Loop.Dial], the watchdog [Loop.Listen]. Handlers are called on the
// loop goroutine, must not block, and may call every method of Loop, Session and
// Listener. Other goroutines may call only Loop.Do.
package peer
