// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Server is what applications meet: the console on the application port, on
// its mark and on conmgr.sock, proxy mode on the application port, and the
// pass-through ports.
type Server struct {
	opts   ServerOptions
	log    *slog.Logger
	apps   *Apps
	events eventRing
	stats  stats

	entrances  []*entrance
	port       uint16      // of the console, as bound
	proxyPorts []ProxyPort // as bound

	admission   sync.Mutex // guards the following
	connections int64      // under max_connections
	descriptors int64      // of applications
	budget      int64      // constant: most descriptors for applications

	stopping atomic.Bool // no new applications

	passthrough, proxying way
	cancels               cancelKeys   // of proxied sessions
	loops                 []*relayLoop // constant while Run serves
	looping               sync.WaitGroup
	nextLoop              atomic.Uint32
	turns                 turns // of TLS handshakes

	startupLog, acceptLog, limitLog, strangerLog throttle
}

// NewServer binds every listener, so that a taken port is an error at start.
// Nothing is served before Run. The caller calls either Run or Close.
func NewServer(opts ServerOptions) (*Server, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, log: opts.Log, budget: int64(opts.Descriptors), turns: newTurns()}
	s.passthrough.name, s.proxying.name = "pass-through", "proxy"
	s.startupLog.every, s.strangerLog.every = time.Minute, time.Minute
	s.passthrough.log.every, s.proxying.log.every = time.Minute, time.Minute
	s.acceptLog.every, s.limitLog.every = time.Second, time.Second
	s.apps = newApps(s)
	if err := s.listen(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// listen binds the console's sockets and the pass-through ports.
func (s *Server) listen() error {
	addresses, err := resolveListen(s.opts.ListenAddresses)
	if err != nil {
		return err
	}
	list, port, err := listenTCP(addresses, s.opts.Port)
	if err != nil {
		return err
	}
	s.port = port
	s.enter(list, entrance{cost: 1, serve: s.consoleEntrance(KindConsole)})

	mark, err := listenMark(port)
	if err != nil {
		return err
	}
	s.enter([]net.Listener{mark}, entrance{cost: 1, serve: s.consoleEntrance(KindConsole)})

	if s.opts.SocketPath != "" {
		l, err := listenSocket(s.opts.SocketPath)
		if err != nil {
			return err
		}
		s.enter([]net.Listener{l}, entrance{cost: 1, outside: true, serve: s.consoleEntrance(kindControl)})
	}
	for _, p := range s.opts.ProxyListen {
		list, port, err := listenTCP(addresses, p.Port)
		if err != nil {
			return fmt.Errorf("proxy_listen: %w", err)
		}
		s.proxyPorts = append(s.proxyPorts, ProxyPort{Port: port, Target: p.Target})
		s.enter(list, entrance{cost: 2, serve: s.passthroughEntrance(p.Target)})
	}
	return nil
}

func (s *Server) enter(list []net.Listener, like entrance) {
	for _, l := range list {
		e := like
		e.listener = l
		s.entrances = append(s.entrances, &e)
	}
}

// Apps returns the registry of applications.
func (s *Server) Apps() *Apps { return s.apps }

// Port returns the console's port, as bound.
func (s *Server) Port() uint16 { return s.port }

// ProxyPorts returns the pass-through ports, as bound.
func (s *Server) ProxyPorts() []ProxyPort { return s.proxyPorts }

// Run serves until ctx ends. Then it tells every application that is left
// (57P01), closes all sockets and returns nil when all sessions have ended. An error
// means that nothing was served.
func (s *Server) Run(ctx context.Context) error {
	if err := s.makeLoops(); err != nil {
		s.Close()
		return err
	}
	// Sessions outlive ctx by the moment in which they are told.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var tasks sync.WaitGroup
	for _, e := range s.entrances {
		tasks.Go(func() { s.acceptLoop(serving, e) })
	}
	tasks.Go(func() { s.apps.releaseLoop(serving) })
	<-ctx.Done()
	s.stopping.Store(true)
	s.Close()
	s.tellAll(serving, stopNotice)
	stop()
	s.killAll()
	tasks.Wait()
	s.endLoops()
	return nil
}

// Close frees the listeners. Run does it at its end.
func (s *Server) Close() {
	for _, e := range s.entrances {
		_ = e.listener.Close()
	}
}

// What applications are told when conmgr itself goes: no instance.
var (
	stopNotice    = notice(faultPayload{Reason: "stop"}, "conmgr was stopped")
	restartNotice = notice(faultPayload{Reason: "restart"}, "conmgr restarts")
)

// Shutdown lets the applications go and returns when none is left, or ctx
// ends. From then on new applications are refused; sessions on conmgr.sock are
// served until Run ends. It may be called again with a harder mode.
func (s *Server) Shutdown(ctx context.Context, mode ShutdownMode) error {
	s.stopping.Store(true)
	s.Event(Event{At: time.Now(), Kind: "shutdown", Reason: string(mode), Applications: s.apps.Count()})
	switch mode {
	case ShutdownSmart:
		select {
		case <-s.apps.gone():
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	case ShutdownRestart:
		s.tellAll(ctx, restartNotice)
	case ShutdownFast:
		s.tellAll(ctx, stopNotice)
	case ShutdownImmediate:
	default:
		return fmt.Errorf("unknown shutdown mode %q", mode)
	}
	for _, e := range s.apps.enders(false) {
		e.kill()
	}
	return nil
}

const tellTime = 500 * time.Millisecond

// tellAll ends every application and waits until all have gone, at most
// tellTime: who does not read has the notice in its kernel by then.
func (s *Server) tellAll(ctx context.Context, notice []byte) {
	for _, e := range s.apps.enders(false) {
		e.end(notice)
	}
	wait := time.NewTimer(tellTime)
	defer wait.Stop()
	select {
	case <-s.apps.gone():
	case <-wait.C:
	case <-ctx.Done():
	}
}

func (s *Server) killAll() {
	for _, e := range s.apps.enders(true) {
		e.kill()
	}
}

// consoleEntrance serves consoles of one kind.
func (s *Server) consoleEntrance(kind AppKind) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		m := &app{kind: kind, connected: time.Now(), state: "startup"}
		if u, ok := conn.(*net.UnixConn); ok {
			m.owner = unixOwner(u)
		} else {
			m.peer, m.local = endsOf(conn)
		}
		s.serveConsole(ctx, conn.(stream), m)
	}
}

// endsOf returns the addresses of a TCP connection.
func endsOf(conn net.Conn) (peer, local netip.AddrPort) {
	return unmapped(conn.RemoteAddr()), unmapped(conn.LocalAddr())
}

func unmapped(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// identify finds the owners of applications that came over loopback and are
// not known yet. A fact found once stays.
func (s *Server) identify() {
	var lookup *tcpOwners
	for _, m := range s.apps.list() {
		if m.owner.known || !m.peer.Addr().IsLoopback() {
			continue
		}
		if lookup == nil {
			var err error
			if lookup, err = openTCPOwners(); err != nil {
				return // everybody stays a stranger
			}
			defer lookup.close()
		}
		if o := lookup.lookup(m.peer, m.local); o.known {
			s.apps.setOwner(m.id, o)
		}
	}
}
