// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// proxied is one application of proxy mode: a session on the application port
// that asked for another database than the console's. conmgr has read its first
// packet, opens the hop to an instance with TLS of its own, sends that packet
// there, and from then on passes bytes. Of these it reads the instance's first
// messages, for the key that cancels.
type proxied struct {
	passage
	route *cancelRoute // of cancel requests
	key   string       // learned from the instance, "" before
}

// proxies reports whether a session is one for an instance. The mark and
// conmgr.sock have the console alone.
func (c *console) proxies(st *startup) bool {
	_, tcp := c.conn.(*net.TCPConn)
	return tcp && st.database() != consoleDatabase
}

// serveProxied makes a session that has only started a proxied one. An error is
// for the client, who has been told nothing; without one the connection has
// ended.
func (s *Server) serveProxied(ctx context.Context, c *console, st *startup) error {
	if s.stopping.Load() {
		return errStopping
	}
	if !s.allowed(c.app.peer.Addr()) {
		s.stats.refusedStranger.Add(1)
		return fatal("28000", "connections from %s are not passed on to an instance", c.app.peer.Addr()).
			withHint("conmgr passes on what comes from its own host, or from an address in proxy_allow.")
	}
	first, target, err := forwardStartup(st.raw, s.opts.ProxyTarget)
	if err != nil {
		return err
	}
	if !s.grow() {
		s.logLimit(c.conn, s.stats.refusedLimit.Add(1))
		return net.ErrClosed
	}
	defer s.shrink()
	p := s.newProxied(c, append(first, c.in.buf...))
	*st, c.in.buf = startup{}, nil // an idle session is to keep no copy
	s.apps.become(c.app, KindProxy, p)
	if !c.out.retire() {
		return errEnded // by what came before become
	}
	_ = c.conn.SetDeadline(time.Time{})
	defer p.forget()
	return p.follow(ctx, target)
}

// newProxied makes the passage; first is what an instance is sent first.
func (s *Server) newProxied(c *console, first []byte) *proxied {
	p := new(proxied)
	p.passage = passage{
		server: s, app: c.app, client: c.conn.(*net.TCPConn), way: &s.proxying,
		open: func(ctx context.Context, conn *net.TCPConn, n *InstanceView) (*hop, error) {
			return p.openHop(ctx, conn, n, first)
		},
		greeting: &greeting{learn: p.learn},
	}
	return p
}

// openHop sends an instance the first bytes, behind TLS or not.
func (p *proxied) openHop(ctx context.Context, conn *net.TCPConn, n *InstanceView, first []byte) (*hop, error) {
	sec := p.server.securityOf(n)
	h, err := sec.secure(ctx, conn)
	if err != nil {
		return nil, err
	}
	err = within(ctx, conn, "room for the first packet", func() error {
		_, err := h.Write(first)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("send the startup packet: %w", err)
	}
	p.server.stats.bytesToInstances.Add(int64(len(first)))
	p.route = &cancelRoute{at: netip.AddrPortFrom(n.Addr, n.Port)}
	if h.secure != nil {
		p.route.sec = sec
		p.route.sec.required = true
	}
	p.greeting.unbind = h.secure != nil
	return h, nil
}

// learn keeps the key of the session. It runs while bytes pass.
func (p *proxied) learn(key []byte) {
	p.key = string(key)
	p.server.cancels.add(p.key, p.route)
}

// forget takes the key back. It runs when no more bytes pass.
func (p *proxied) forget() {
	if p.key != "" {
		p.server.cancels.remove(p.key, p.route)
	}
}
