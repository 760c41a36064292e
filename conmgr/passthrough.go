// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// passthrough is one application of a pass-through port: bytes go both ways as
// they are, so TLS, GSS and channel binding work end to end. Cancel requests
// pass as connections of their own and may meet another instance.
type passthrough struct{ passage }

// passthroughEntrance serves one pass-through port.
func (s *Server) passthroughEntrance(t Target) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		client := conn.(*net.TCPConn)
		m := &app{kind: KindPassthrough, connected: time.Now(), state: "connecting"}
		m.peer, m.local = endsOf(conn)
		if !s.allowed(m.peer.Addr()) {
			s.refuseStranger(client)
			return
		}
		p := &passthrough{passage{server: s, app: m, client: client, way: &s.passthrough, open: openBlind}}
		m.ender = p
		s.apps.add(m)
		defer s.apps.remove(m)
		p.serve(ctx, t)
	}
}

// allowed reports whether a peer may use pass-through: the instance sees
// conmgr's address, so a stranger would inherit what pg_hba.conf grants it.
func (s *Server) allowed(peer netip.Addr) bool {
	if peer.IsLoopback() {
		return true
	}
	for _, p := range s.opts.ProxyAllow {
		if p.Contains(peer.WithZone("")) {
			return true
		}
	}
	return false
}

func (s *Server) refuseStranger(conn *net.TCPConn) {
	s.stats.refusedStranger.Add(1)
	if suppressed, ok := s.strangerLog.allow(time.Now()); ok {
		s.log.Warn("pass-through refused: not a loopback peer and not in proxy_allow",
			"remote", peerName(conn), "local", conn.LocalAddr().String(), "suppressed", suppressed)
	}
	reset(conn)
}

// openBlind sends nothing of our own.
func openBlind(_ context.Context, conn *net.TCPConn, _ *InstanceView) (*hop, error) {
	return &hop{tcp: conn}, nil
}

// serve connects and passes bytes until both sides have ended.
func (p *passthrough) serve(ctx context.Context, t Target) {
	defer func() { _ = p.client.Close() }()
	if ctx.Err() != nil {
		return
	}
	if err := p.follow(ctx, t); err != nil {
		p.refuse(err)
	}
}

// refuse answers the client's startup packet with the reason. Encryption is
// declined first: libpq shows no text that stands before an encrypted session
// would begin. A client that insists on TLS only learns that it cannot be.
func (p *passthrough) refuse(reason error) {
	conn := stream(p.client)
	from, err := newReceiver(conn)
	if err != nil {
		return
	}
	out, err := newOutlet(conn)
	if err != nil {
		return
	}
	in := &intake{from: from}
	_ = conn.SetDeadline(time.Now().Add(startupTimeout))
	if _, err = p.server.handshake(in, out.send); err == nil {
		err = reason
	}
	p.server.refuse(in, out.send, conn, err)
}
