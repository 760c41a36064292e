// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// maxAddresses is how many addresses of one name are kept: a name server must
// not make the round of attempts endless.
const maxAddresses = 16

// ResolverConfig is what a Resolver goes by. All fields have defaults.
type ResolverConfig struct {
	// Lookup resolves a name; it may hang. nil means net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Timeout ends one look-up. 0 means 5 s.
	Timeout time.Duration
	// Every is the least time between two look-ups of one name. 0 means 5 s.
	Every time.Duration
	// Found is told, on a goroutine of the resolver, that the address of a
	// host changed or came to be known. It must not call the resolver's Close.
	Found func(i int, addr netip.Addr)
	// Log takes one line when a name stops or starts to resolve; nil discards.
	Log *slog.Logger
}

// Resolver knows the addresses of a fixed list of hosts. It looks names up in
// the background, so that a hanging name server delays nobody: a caller gets
// the last good address at once, even after a later look-up failed. Numeric
// addresses and localhost are never looked up. It is safe for concurrent use.
type Resolver struct {
	cfg    ResolverConfig
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex // guards the following
	closed bool
	hosts  []resolvedHost
}

// resolvedHost is one entry of the list.
type resolvedHost struct {
	name    string
	fixed   bool         // never looked up
	addrs   []netip.Addr // the last good answer
	at      int          // into addrs: the present one
	running bool         // a look-up is under way
	next    mono.Instant // no look-up before
	failing bool         // the latest look-up failed, and that was logged
}

// errNoAddress is what a name that resolves to nothing is logged with.
var errNoAddress = errors.New("no IPv4 or IPv6 address")

// NewResolver returns a resolver for the hosts: names or numeric addresses. It
// looks nothing up before the first Pick. Close it.
func NewResolver(cfg ResolverConfig, hosts []string) *Resolver {
	if cfg.Lookup == nil {
		cfg.Lookup = lookupSystem
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Every == 0 {
		cfg.Every = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{cfg: cfg}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, name := range hosts {
		r.hosts = append(r.hosts, newHost(name))
	}
	return r
}

func lookupSystem(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func newHost(name string) resolvedHost {
	if addr, err := netip.ParseAddr(name); err == nil {
		return resolvedHost{name: name, fixed: true, addrs: []netip.Addr{addr.Unmap()}}
	}
	if name == "localhost" { // RFC 6761 section 6.3
		v4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		return resolvedHost{name: name, fixed: true, addrs: []netip.Addr{v4, netip.IPv6Loopback()}}
	}
	return resolvedHost{name: name}
}

// Pick returns the address to try for host i now; ok is false while none is
// known, and Found will tell when that changes. failed says that the attempt
// before did not reach the address: the next one of the name is taken then. It
// never blocks; each call renews the name in the background, at most once per
// ResolverConfig.Every.
func (r *Resolver) Pick(now mono.Instant, i int, failed bool) (addr netip.Addr, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.hosts[i]
	if failed && len(h.addrs) > 0 {
		h.at = (h.at + 1) % len(h.addrs)
	}
	if !h.fixed && !h.running && !r.closed && !now.Before(h.next) {
		h.running, h.next = true, now.Add(r.cfg.Every)
		r.tasks.Go(func() { r.resolve(i, h.name) })
	}
	return h.present()
}

func (h *resolvedHost) present() (netip.Addr, bool) {
	if len(h.addrs) == 0 {
		return netip.Addr{}, false
	}
	return h.addrs[h.at], true
}

// resolve is the goroutine of one look-up.
func (r *Resolver) resolve(i int, name string) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Timeout)
	defer cancel()
	addrs, err := r.cfg.Lookup(ctx, name)
	addrs = dialable(addrs)
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	if r.ctx.Err() != nil {
		return
	}
	if addr, changed := r.store(i, addrs, err); changed && r.cfg.Found != nil {
		r.cfg.Found(i, addr)
	}
}

// dialable drops what cannot be dialled and what is there twice.
func dialable(addrs []netip.Addr) []netip.Addr {
	var good []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if a.IsValid() && !a.IsUnspecified() && !slices.Contains(good, a) && len(good) < maxAddresses {
			good = append(good, a)
		}
	}
	return good
}

// store ends a look-up and reports whether the present address changed. An
// address that is still among the answers stays the present one; a failure
// leaves everything as it was.
func (r *Resolver) store(i int, addrs []netip.Addr, err error) (now netip.Addr, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.hosts[i]
	h.running = false
	r.note(h, err)
	if err != nil {
		return netip.Addr{}, false
	}
	before, known := h.present()
	h.addrs, h.at = addrs, max(slices.Index(addrs, before), 0)
	now = h.addrs[h.at]
	return now, !known || now != before
}

// note logs that a name stopped or started to resolve.
func (r *Resolver) note(h *resolvedHost, err error) {
	switch {
	case err != nil && !h.failing:
		r.cfg.Log.Warn("host name not resolved", "host", h.name, "kept", len(h.addrs), "err", err)
	case err == nil && h.failing:
		r.cfg.Log.Info("host name resolved again", "host", h.name)
	}
	h.failing = err != nil
}

// Close ends the look-ups under way and waits for their goroutines. Found is
// not called afterwards.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.tasks.Wait()
}
