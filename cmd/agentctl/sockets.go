// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/pflag"
)

var socketsVerb = verb{"sockets", "show TCP sockets with their state and owner", socketsUsage, sockets, false}

const socketsUsage = `agentctl sockets shows TCP sockets, of all users, with what the kernel knows of
each connection, its owner, and its database session. It needs no right; only
root sees the processes of other users.

Usage:
  agentctl sockets [OPTION]...

Which sockets (an option can be given several times; one of its values fits):
  --peer=ADDR|PREFIX     the other end, as 10.1.2.3, 10.1.0.0/16 or fe80::1%eth0
  --local=ADDR           address of this end
  --port=PORT|FROM-TO    port of this end
  --state=STATE,...      as established, close-wait, listen; all
                         (default: all but listen and time-wait)
  --netns=NAME|PATH      in another network namespace: a name of ip-netns, or a
                         path as /proc/PID/ns/net (root)

What to show:
  --dsn=CONNINFO         the session of pg_stat_activity behind each socket, by
                         client_addr and client_port; read only
  --json                 one JSON object per line and socket, see below
  --watch[=INTERVAL]     again and again (default 2s); ends with Ctrl-C
  -?, --help             print this help and exit

Columns. A terminal that is too narrow shows the most important ones and says
which are missing; a pipe gets all.
  state       ESTAB is ESTABLISHED
  local, peer address and port of this end and of the other end
  recvq       received and not yet read by the process, in bytes; with LISTEN,
              connections that wait to be accepted
  sendq       written and not yet acknowledged by the peer, in bytes; with
              LISTEN, how many connections may wait
  rexmit      retransmissions without an answer now / over the connection's life
  ack         time since the last acknowledgement of the peer
  data        time since the last data of the peer
  rtt, rto    round trip; when a segment counts as lost
  timer       what the kernel does next, when, and how often it did so in vain
  user        of the socket
  process     that has it open: name/pid, +N for N others
  backend, role, database, activity, query, type
              with --dsn: pid, usename, datname, state, time since query_start,
              backend_type

JSON. Every object has all names; null is unknown or not applicable. Times are
milliseconds, *_ago_ms counts back from "time".
  time, state, family (IPv4, IPv6), local_address, local_port, peer_address,
  peer_port, interface, recv_queue, send_queue, rtt_ms, rttvar_ms, min_rtt_ms,
  rto_ms, retransmits, retransmits_total, probes, unacked, lost, bytes_acked,
  bytes_received, last_data_sent_ago_ms, last_data_received_ago_ms,
  last_ack_received_ago_ms, timer {kind, expires_ms, retries}, uid, user,
  processes [{pid, name}], inode, cookie (a string), backend {pid, user,
  database, state, query_start, backend_type}
`

// socketsOptions are the command line of "sockets".
type socketsOptions struct {
	target target
	json   bool
	watch  time.Duration // 0: once
}

func parseSockets(flags *pflag.FlagSet, args []string) (o socketsOptions, err error) {
	var texts targetFlags
	texts.add(flags)
	states := flags.StringArray("state", nil, "")
	watch := watchFlag(flags)
	flags.BoolVar(&o.json, "json", false, "")
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	if o.target, err = texts.target(flags); err != nil {
		return o, err
	}
	if o.target.states, err = parseStates(*states); err != nil {
		return o, err
	}
	o.watch, err = parseWatch(flags, *watch)
	return o, err
}

func sockets(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseSockets(flags, args)
	if err != nil {
		return err
	}
	l, err := openLister(ctx, e, &o.target)
	if err != nil {
		return err
	}
	defer l.close()
	if o.watch > 0 {
		return watch(ctx, e, o.watch, o.json, func(ctx context.Context) (*picture, error) {
			seen, err := l.look(ctx)
			if err != nil {
				return nil, err
			}
			return seen.picture(o.target.joined), nil
		})
	}
	seen, err := l.look(ctx)
	if err != nil {
		return err
	}
	p := seen.picture(o.target.joined)
	p.notes = seen.notes // that the database did not tell is the error
	return cmp.Or(p.print(e, o.json), seen.joinErr)
}
