// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

var killVerb = verb{"sockets kill", "destroy the TCP sockets of one peer", killUsage, kill, false}

const killUsage = `agentctl sockets kill destroys the TCP connections of one peer to ports of this
host, as pgwatchdog does for a client host that died: the process that has such
a socket open gets ECONNABORTED at once, and a peer that can be reached a reset.
It shows them and asks first. It needs CAP_NET_ADMIN (root).

Destroyed are exactly the connections that were shown (ESTABLISHED, CLOSE_WAIT),
never a listening socket, and never a connection that came later by the same
address and port. Database sessions are not terminated; those that are busy do
not notice until they look at their socket.

Usage:
  agentctl sockets kill --peer=ADDR --port=PORT [OPTION]...

Options:
  --peer=ADDR            the other end: one address
  --port=PORT|FROM-TO    port of this end; can be given several times
  --all-ports            every port of this end, also that of your own login
  --own-address          also when ADDR is an address of this host
  --local=ADDR           only at this address of this host
  --netns=NAME|PATH      in another network namespace (root)
  --dsn=CONNINFO         show the database session behind each socket
  --yes                  do not ask
  --dry-run              show, destroy nothing
  --json                 one JSON object per line and socket: those of "agentctl
                         sockets", with result (destroyed, gone, not permitted,
                         not supported, refused, failed, skipped; dry run) and
                         error
  -?, --help             print this help and exit

Exit code:
  0  all that were shown are destroyed or were gone already, or there were none,
     or --dry-run
  1  failed: none was destroyed
  2  wrong usage
  4  refused, nothing was done: ADDR is this host's own and --own-address is
     missing, nobody could be asked and --yes is missing, or the answer was no
  5  some are destroyed, others are not
`

// killOptions are the command line of "sockets kill".
type killOptions struct {
	target     target
	peer       netip.Addr
	ownAddress bool
	yes        bool
	dryRun     bool
	json       bool
}

func parseKill(flags *pflag.FlagSet, args []string) (o killOptions, err error) {
	var texts targetFlags
	texts.add(flags)
	allPorts := flags.Bool("all-ports", false, "")
	flags.BoolVar(&o.ownAddress, "own-address", false, "")
	flags.BoolVar(&o.yes, "yes", false, "")
	flags.BoolVar(&o.dryRun, "dry-run", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	switch {
	case len(texts.peers) != 1:
		return o, usageError("%d options --peer: expected exactly one", len(texts.peers))
	case len(texts.ports) == 0 && !*allPorts:
		return o, usageError("no port: expected --port=PORT, or --all-ports for every port of this host")
	case len(texts.ports) > 0 && *allPorts:
		return o, usageError("options --port and --all-ports contradict each other: expected one of them")
	}
	if o.peer, err = parseAddr("--peer", texts.peers[0], "one address, as 10.1.2.3"); err != nil {
		return o, err
	}
	if bare := o.peer.Unmap(); bare.Is6() && bare.IsLinkLocalUnicast() && bare.Zone() == "" {
		return o, usageError("--peer %q: expected an interface with a link-local address, as %v%%eth0", texts.peers[0], o.peer)
	}
	o.target, err = texts.target(flags)
	return o, err
}

func kill(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseKill(flags, args)
	if err != nil {
		return err
	}
	l, err := openLister(ctx, e, &o.target)
	if err != nil {
		return err
	}
	defer l.close()
	if err := o.checkOwn(l.own); err != nil {
		return err
	}
	seen, err := l.look(ctx)
	if err != nil {
		return err
	}
	if err := o.preview(e, seen); err != nil {
		return err
	}
	if len(seen.rows) == 0 || o.dryRun {
		return o.printResults(e, seen, nil)
	}
	if err := o.confirm(ctx, e, len(seen.rows)); err != nil {
		return err
	}
	return o.destroy(ctx, e, l, seen)
}

// checkOwn refuses the host's own addresses: what talks to itself here may be
// the database's own replication, pooler or agent.
func (o *killOptions) checkOwn(own []netip.Addr) error {
	peer := o.peer.WithZone("").Unmap()
	if o.ownAddress || !peer.IsLoopback() && !slices.Contains(own, peer) {
		return nil
	}
	return refused("%v is an address of this host: nothing was done; --own-address destroys its sockets, too", o.peer)
}

// preview shows what would be destroyed. With --json it is for the one who is
// asked.
func (o *killOptions) preview(e *env, seen *look) error {
	n := notes{e: e}
	defer n.print(seen.allNotes())
	if len(seen.rows) == 0 || o.json && (o.yes || o.dryRun || !e.asks) {
		return nil
	}
	shown := *e
	if o.json {
		shown.stdout = e.stderr
	}
	return seen.picture(o.target.joined).printTable(&shown)
}

// confirm asks, unless --yes says that nobody needs to. Ctrl-C is a no.
func (o *killOptions) confirm(ctx context.Context, e *env, n int) error {
	if o.yes {
		return nil
	}
	if !e.asks {
		return refused("nobody can be asked, as this is no terminal: nothing was done; expected --yes or --dry-run")
	}
	fmt.Fprintf(e.stderr, "Destroy %s of %v? [y/N] ", plural(n, "socket"), o.peer)
	answered := make(chan string, 1)
	go answer(e.stdin, answered)
	select {
	case text := <-answered:
		if text = strings.ToLower(text); text == "y" || text == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(e.stderr)
	}
	return refused("not confirmed: nothing was done")
}

// answer reads the user's answer. Nothing ends it when there is none, but the
// program is at its end then.
func answer(stdin io.Reader, answered chan<- string) { answered <- readAnswer(stdin) }

// readAnswer reads one line and nothing behind it.
func readAnswer(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); len(line) < 100; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' {
			break
		}
		if line = append(line, b[:n]...); err != nil {
			break
		}
	}
	return strings.TrimSpace(string(line))
}

// destroy kills what was shown, and nothing else.
func (o *killOptions) destroy(ctx context.Context, e *env, l *lister, seen *look) error {
	sockets := make([]sockdiag.Socket, len(seen.rows))
	for i, r := range seen.rows {
		sockets[i] = r.Socket
	}
	outcomes, err := l.conn.Destroy(ctx, sockets)
	switch verdict := o.printResults(e, seen, outcomes); {
	case verdict != nil && err != nil:
		return fmt.Errorf("%w: %w", verdict, err)
	case verdict != nil || err != nil:
		return cmp.Or(verdict, err)
	}
	return o.tellNew(ctx, e, l, seen)
}

// tellNew looks whether there are connections that were not shown: a peer that
// is alive comes back at once.
func (o *killOptions) tellNew(ctx context.Context, e *env, l *lister, before *look) error {
	after, err := l.conn.Find(ctx, l.filter)
	if err != nil {
		return findError(err)
	}
	shown := make(map[uint64]bool, len(before.rows))
	for _, r := range before.rows {
		shown[r.Cookie] = true
	}
	after = slices.DeleteFunc(after, func(s sockdiag.Socket) bool { return shown[s.Cookie] })
	if len(after) > 0 {
		n := notes{e: e}
		n.print([]string{fmt.Sprintf("%s of %v came later and was not touched", plural(len(after), "socket"), o.peer)})
	}
	return nil
}
