// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// ownConns knows the agent's own TCP connections to its instance, which no
// warrant ends, whatever watchdog.protect says. The zero value is ready; it is
// safe for concurrent use.
type ownConns struct {
	mu   sync.Mutex // guards the following
	open map[netip.AddrPort]struct{}
}

// dial connects and remembers the own end until the connection is closed.
func (o *ownConns) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	addr, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return conn, nil // a Unix socket is out of every warrant's reach
	}
	end := addr.AddrPort()
	end = netip.AddrPortFrom(bareAddr(end.Addr()), end.Port())
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = make(map[netip.AddrPort]struct{})
	}
	o.open[end] = struct{}{}
	return &ownConn{Conn: conn, forget: sync.OnceFunc(func() { o.forget(end) })}, nil
}

func (o *ownConns) forget(end netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, end)
}

// ends are the own ends of what is open now.
func (o *ownConns) ends() []netip.AddrPort {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.open))
}

// ownConn is a connection that is known while it is open.
type ownConn struct {
	net.Conn
	forget func()
}

// Close forgets the connection first: its port may be used again at once.
func (c *ownConn) Close() error {
	c.forget()
	return c.Conn.Close()
}
