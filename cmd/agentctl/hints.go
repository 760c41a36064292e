// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

var hintsVerb = verb{"hints", "show link events as they happen", hintsUsage, hints, false}

const hintsUsage = `agentctl hints shows what happens to the links of this host, as it happens:
which device lost its carrier or has it back, was set down or up, or is gone;
who told of it, and how late. It ends with Ctrl-C.

Usage:
  agentctl hints [OPTION]...

Options:
  --device=NAME        only of this device (several --device: any)
  --peer=ADDR          the way to this peer as well: good, lost (no carrier) or
                       off (set down, removed, no route); with %DEVICE behind a
                       link-local address (several --peer: all of them)
  --without=SOURCE     leave out fentry, kprobe or counter, to see the next one
                       (several --without: all of them)
  --count=N            end after so many lines
  --netns=NAME|PATH    in another network namespace (root); without the counter,
                       whose /sys belongs to this one
  --json               one JSON object per line: time, event, device, ifindex,
                       peer, source, latency_ms, latency_is (exact, at_most, or
                       null: the source does not tell)
  -?, --help           print this help and exit

Sources, best first; the first that works is used, and rtnetlink beside it:
  fentry, kprobe       the kernel's own time; CAP_BPF and CAP_PERFMON
  counter              looks every 5 ms; the latency is at most what is shown
  rtnetlink            does not tell how late it is: up to a second after the
                       loss of any device of the machine
`

// hintsOptions are the command line of "hints".
type hintsOptions struct {
	devices []string
	peers   []netip.Addr
	without []linkhint.Source
	count   int
	netns   string
	json    bool
}

func parseHints(flags *pflag.FlagSet, args []string) (o hintsOptions, err error) {
	flags.StringArrayVar(&o.devices, "device", nil, "")
	peers := flags.StringArray("peer", nil, "")
	without := flags.StringArray("without", nil, "")
	flags.IntVar(&o.count, "count", 0, "")
	flags.StringVar(&o.netns, "netns", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	if flags.Changed("count") && o.count < 1 {
		return o, usageError("--count %d: expected at least 1", o.count)
	}
	for _, text := range *peers {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return o, usageError("--peer %q: expected an IP address", text)
		}
		o.peers = append(o.peers, addr.Unmap())
	}
	for _, text := range *without {
		s, err := parseSource(text)
		if err != nil {
			return o, err
		}
		o.without = append(o.without, s)
	}
	if o.netns != "" {
		o.without = append(o.without, linkhint.Counter)
	}
	return o, nil
}

func parseSource(text string) (linkhint.Source, error) {
	for s := linkhint.Fentry; s < linkhint.Rtnetlink; s++ {
		if strings.EqualFold(text, s.String()) {
			return s, nil
		}
	}
	return 0, usageError("--without %q: expected fentry, kprobe or counter", text)
}

// linkNews is one line: an event of a device, or a change of the way to a peer.
type linkNews struct {
	linkhint.Event
	what string
	peer netip.Addr
	seen mono.Instant
}

// hintsKept is how many lines may wait for the terminal.
const hintsKept = 1024

// hintFeed takes over what the Watcher tells, on its goroutine.
type hintFeed struct {
	o      *hintsOptions
	feed   chan linkNews
	missed atomic.Int64
}

func (f *hintFeed) onEvent(e linkhint.Event) {
	if len(f.o.devices) == 0 || slices.Contains(f.o.devices, e.Name) {
		f.put(linkNews{Event: e, what: e.Kind.String(), seen: clock.Now()})
	}
}

func (f *hintFeed) onPaths(paths []linkhint.Path) {
	for _, p := range paths {
		f.put(linkNews{Event: p.Cause, what: "path " + p.State.String(), peer: p.Peer, seen: clock.Now()})
	}
}

// put never waits: who cannot write fast enough misses the newest.
func (f *hintFeed) put(h linkNews) {
	select {
	case f.feed <- h:
	default:
		f.missed.Add(1)
	}
}

func hints(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseHints(flags, args)
	if err != nil {
		return err
	}
	f := &hintFeed{o: &o, feed: make(chan linkNews, hintsKept)}
	var w *linkhint.Watcher
	err = inNamespace(o.netns, func() (err error) {
		w, err = linkhint.New(linkhint.Config{
			BPF: true, All: true, Without: o.without, OnEvent: f.onEvent, OnPaths: f.onPaths,
			Log: slog.New(slog.DiscardHandler),
		})
		return err
	})
	if err != nil {
		return err
	}
	for _, peer := range o.peers {
		w.Watch(peer)
	}
	for _, m := range w.Missing() {
		fmt.Fprintf(e.stderr, "%s: note: %s is missing: %v; %s\n", program, m.Source, m.Err, m.Hint)
	}
	fmt.Fprintf(e.stderr, "%s: note: watching links by %s\n", program, w.Source())
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	g.Go(func() error { return w.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return f.print(ctx, e)
	})
	return g.Wait()
}

// print writes lines until there are enough or ctx ends.
func (f *hintFeed) print(ctx context.Context, e *env) error {
	p := hintPrinter{e: e, json: f.o.json, clock: e.at}
	for n := 0; f.o.count == 0 || n < f.o.count; n++ {
		select {
		case h := <-f.feed:
			if err := p.print(h); err != nil {
				return err
			}
			if n := f.missed.Swap(0); n > 0 {
				fmt.Fprintf(e.stderr, "%s: note: %d events came faster than they could be written\n", program, n)
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// at is the time of day of an instant.
func (e *env) at(i mono.Instant) time.Time { return e.now().Add(i.Sub(clock.Now())) }
