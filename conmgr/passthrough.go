// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// slowConnect is when a connection to an instance counts as slow.
const slowConnect = time.Second

// errLost means that the instance faulted while it was connected to.
var errLost = errors.New("the instance is lost")

// passthrough is one application of a pass-through port: bytes go both ways as
// they are, so TLS, GSS and channel binding work end to end. Cancel requests
// pass as connections of their own and may meet another instance.
type passthrough struct {
	server *Server
	app    *app
	client *net.TCPConn

	mu    sync.Mutex // guards the following
	ended bool       // for conmgr's own reasons
	now   *relay     // the attempt that is under way or succeeded
}

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
		p := &passthrough{server: s, app: m, client: client}
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

// serve connects and passes bytes until both sides have ended.
func (p *passthrough) serve(ctx context.Context, t Target) {
	defer func() { _ = p.client.Close() }()
	if ctx.Err() != nil {
		return
	}
	err := error(errStopping)
	if !p.server.stopping.Load() {
		err = p.connect(ctx, t)
	}
	if err != nil {
		p.server.passFailed(t, err)
		p.refuse(err)
		return
	}
	p.server.stats.passConnected.Add(1)
	p.server.apps.connected(p.app)
	p.now.run(p.server)
}

// connect tries the instances that the target allows, best first, and again
// with a newer picture when one was lost meanwhile.
func (p *passthrough) connect(ctx context.Context, t Target) error {
	const rounds = 3
	var tried round
	for range rounds {
		tried = round{}
		err := p.server.choose(ctx, t, func(v *View, order []int) error {
			return p.tryAll(ctx, v, order, t, &tried)
		})
		if err != nil || tried.connected {
			return err
		}
		if !tried.lost {
			break
		}
	}
	return fmt.Errorf("no instance took the connection: %s", strings.Join(tried.failures, "; "))
}

// round is what came of trying all candidates once.
type round struct {
	connected bool
	lost      bool     // a candidate faulted meanwhile
	failures  []string // of the candidates before
}

// tryAll returns an error only when the candidates have to be chosen again, or
// the application ends.
func (p *passthrough) tryAll(ctx context.Context, v *View, order []int, t Target, out *round) error {
	for _, i := range order {
		err := p.attempt(ctx, v, i, t)
		switch {
		case err == nil:
			out.connected = true
			return nil
		case errors.Is(err, errStaleView) || errors.Is(err, errStopping):
			return err
		}
		out.lost = out.lost || errors.Is(err, errLost)
		out.failures = append(out.failures, fmt.Sprintf("instance %s: %s", v.Instances[i].Name(), err))
	}
	return nil
}

// attempt binds to one instance and connects to it.
func (p *passthrough) attempt(ctx context.Context, v *View, index int, t Target) error {
	n := &v.Instances[index]
	if !n.Addr.IsValid() {
		return errors.New("its address is not resolved yet")
	}
	ctx, cancel := context.WithTimeout(ctx, p.server.opts.ConnectTimeout)
	defer cancel()
	r := &relay{client: p.client, cancel: cancel}
	if !p.use(r) {
		return errStopping
	}
	if err := p.server.apps.bind(p.app, index, t, v.At, r); err != nil {
		return err
	}
	slow := time.AfterFunc(slowConnect, func() { p.server.slowConnect(index) })
	defer slow.Stop()
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(n.Addr, n.Port).String())
	if err == nil && r.up(conn.(*net.TCPConn)) {
		return nil
	}
	if err == nil { // lost between the connect and here
		reset(conn)
	}
	p.server.apps.unbind(p.app)
	if r.isLost() {
		return errLost
	}
	return err
}

// use makes r the attempt that an end meets.
func (p *passthrough) use(r *relay) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.now = r
	return true
}

// passFailed counts and, at most once a minute, logs.
func (s *Server) passFailed(t Target, err error) {
	s.stats.passFailed.Add(1)
	if errors.Is(err, errStopping) {
		return
	}
	if suppressed, ok := s.passLog.allow(time.Now()); ok {
		s.log.Warn("pass-through found no instance", "target", t.String(), "suppressed", suppressed,
			"err", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func (s *Server) slowConnect(index int) {
	s.stats.passSlow.Add(1)
	s.opts.SlowConnect(index)
}

// end closes both sides as a fault does; kill resets them. While there is no
// connection to an instance the attempt is given up, and the client is told.
func (p *passthrough) end([]byte) {
	if r := p.stop(); r != nil {
		r.tell(nil)
		r.release()
	}
}

func (p *passthrough) kill() {
	r := p.stop()
	reset(p.client)
	if r != nil {
		r.kill()
	}
}

func (p *passthrough) stop() *relay {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.now
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
		e, ok := errors.AsType[*pgError](reason)
		if !ok {
			e = fatal("57P03", "%s", reason)
		}
		err = e
	}
	p.server.refuse(in, out.send, conn, err)
}
