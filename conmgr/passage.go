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
	"sync/atomic"
	"time"
)

// slowConnect is when a connection to an instance counts as slow.
const slowConnect = time.Second

// errLost means that the instance faulted while it was connected to.
var errLost = errors.New("the instance is lost")

// passage leads one application to an instance and passes its bytes there: what
// pass-through and proxy mode have in common.
type passage struct {
	server *Server
	app    *app
	client *net.TCPConn
	way    *way

	// open makes a connected socket the hop to the instance, all that belongs
	// before the first byte of the client included. It is called for one candidate
	// after the other until one succeeds. Its ctx ends with ConnectTimeout, or when
	// the instance is lost.
	open func(ctx context.Context, conn *net.TCPConn, n *InstanceView) (*hop, error)
	// greeting reads what the instance says first; nil for nobody.
	greeting *greeting

	mu    sync.Mutex // guards the following
	ended bool       // for conmgr's own reasons
	now   *relay     // the attempt that is under way or succeeded
}

// way is one of the two kinds of passages, as counters and logs name it.
type way struct {
	name              string
	connected, failed perTarget
	slow              atomic.Int64
	log               throttle // of failures
}

// follow connects and passes bytes until both sides have ended. An error means
// that no instance was reached: the client is still to be told.
func (p *passage) follow(ctx context.Context, t Target) error {
	err := error(errStopping)
	if !p.server.stopping.Load() {
		err = p.connect(ctx, t)
	}
	if err != nil {
		p.server.passageFailed(p.way, t, err)
		return noPassage(err)
	}
	p.way.connected.add(t)
	p.server.apps.connected(p.app)
	p.open = nil // and what it keeps
	p.now.run(p.server, p.app)
	return nil
}

// noPassage makes the error that a client is told.
func noPassage(err error) error {
	if e, ok := errors.AsType[*pgError](err); ok {
		return e
	}
	return fatal("57P03", "%s", err)
}

// connect tries the instances that the target allows, best first, and again
// with a newer picture when one was lost meanwhile.
func (p *passage) connect(ctx context.Context, t Target) error {
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
func (p *passage) tryAll(ctx context.Context, v *View, order []int, t Target, out *round) error {
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
func (p *passage) attempt(ctx context.Context, v *View, index int, t Target) error {
	n := &v.Instances[index]
	if !n.Addr.IsValid() {
		return errors.New("its address is not resolved yet")
	}
	ctx, cancel := context.WithTimeout(ctx, p.server.opts.ConnectTimeout)
	defer cancel()
	raw, err := p.client.SyscallConn()
	if err != nil {
		return err
	}
	r := &relay{client: p.client, raw: raw, cancel: cancel, greeting: p.greeting}
	if !p.use(r) {
		return errStopping
	}
	if err := p.server.apps.bind(p.app, index, t, v.At, r); err != nil {
		return err
	}
	slow := time.AfterFunc(slowConnect, func() { p.server.slowConnect(p.way, index) })
	defer slow.Stop()
	h, err := p.reach(ctx, n)
	if err == nil && r.up(h) {
		return nil
	}
	if err == nil { // lost between the connect and here
		reset(h.tcp)
	}
	p.server.apps.unbind(p.app)
	if r.isLost() {
		return errLost
	}
	return err
}

// reach connects to an instance and prepares the hop.
func (p *passage) reach(ctx context.Context, n *InstanceView) (*hop, error) {
	conn, err := dialInstance(ctx, netip.AddrPortFrom(n.Addr, n.Port))
	if err != nil {
		return nil, err
	}
	h, err := p.open(ctx, conn, n)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return h, nil
}

func dialInstance(ctx context.Context, at netip.AddrPort) (*net.TCPConn, error) {
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// use makes r the attempt that an end meets.
func (p *passage) use(r *relay) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.now = r
	return true
}

// passageFailed counts and, at most once a minute, logs.
func (s *Server) passageFailed(w *way, t Target, err error) {
	w.failed.add(t)
	if errors.Is(err, errStopping) {
		return
	}
	if suppressed, ok := w.log.allow(time.Now()); ok {
		s.log.Warn(w.name+" found no instance", "target", t.String(), "suppressed", suppressed,
			"err", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func (s *Server) slowConnect(w *way, index int) {
	w.slow.Add(1)
	s.opts.SlowConnect(index)
}

// end closes both sides as a fault does; kill resets them. While there is no
// connection to an instance the attempt is given up, and the client is told.
func (p *passage) end([]byte) {
	if r := p.stop(); r != nil {
		r.tell(nil)
		r.insist()
		r.release()
	}
}

func (p *passage) kill() {
	r := p.stop()
	reset(p.client)
	if r != nil {
		r.kill()
	}
}

func (p *passage) stop() *relay {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.now
}
