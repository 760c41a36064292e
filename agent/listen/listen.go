// SPDX-License-Identifier: Apache-2.0

// Package listen turns what a configuration says into TCP listeners.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// Error is why an address cannot be listened on.
type Error struct {
	At  netip.AddrPort
	Err error
}

// Error returns "listen on ADDRESS: why".
func (e *Error) Error() string { return fmt.Sprintf("listen on %v: %v", e.At, e.Err) }

// Unwrap returns the cause, such as [syscall.EADDRINUSE].
func (e *Error) Unwrap() error { return e.Err }

// Resolve turns names into addresses, each of them once: "*" is every address of both
// families, and neither it nor localhost nor an address needs a resolver.
func Resolve(ctx context.Context, names []string) ([]netip.Addr, error) {
	var out []netip.Addr
	add := func(list ...netip.Addr) {
		for _, a := range list {
			if a = a.Unmap(); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	for _, name := range names {
		a, notAddr := netip.ParseAddr(name)
		switch {
		case name == "*":
			add(netip.IPv4Unspecified(), netip.IPv6Unspecified())
		case name == "localhost":
			add(netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
		case notAddr == nil:
			add(a)
		default:
			found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
			if err != nil {
				return nil, fmt.Errorf("resolve %q: %w", name, err)
			}
			add(found...)
		}
	}
	return out, nil
}

// TCP binds a port on every address and returns it with the listeners. With port 0
// the first address chooses for all. Addresses that this host does not have are
// skipped as long as one remains. An error of one address is an [*Error].
func TCP(addresses []netip.Addr, port uint16, keepAlive net.KeepAliveConfig) ([]net.Listener, uint16, error) {
	var out []net.Listener
	var missing error
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	for _, a := range addresses {
		network := "tcp4"
		if a.Is6() {
			network = "tcp6" // sets IPV6_V6ONLY, so that 0.0.0.0 and :: fit together
		}
		at := netip.AddrPortFrom(a, port)
		l, err := config.Listen(context.Background(), network, at.String())
		switch {
		case err == nil:
			out = append(out, l)
			port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		case errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT):
			missing = err
		default:
			Close(out)
			return nil, 0, &Error{at, err}
		}
	}
	if len(out) == 0 {
		return nil, 0, fmt.Errorf("listen on port %d: this host has none of the addresses: %w", port, missing)
	}
	return out, port, nil
}

// Close closes all.
func Close(list []net.Listener) {
	for _, l := range list {
		_ = l.Close()
	}
}
