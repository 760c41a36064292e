// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/listen"
	"github.com/pgconmgr/pgconmgr/agent/unixsock"
)

// entrance is one listening socket and what is behind it.
type entrance struct {
	listener net.Listener
	cost     int64 // descriptors per application
	outside  bool  // not under max_connections: conmgr.sock
	serve    func(ctx context.Context, conn net.Conn)
}

// acceptLoop takes connections until the listener is closed.
func (s *Server) acceptLoop(ctx context.Context, e *entrance) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		conn, err := e.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if !s.acceptFailed(ctx, e, err) {
				return
			}
			continue
		}
		if !s.admit(e) {
			refused := s.stats.refusedLimit.Add(1)
			s.logLimit(conn, refused)
			_ = conn.Close()
			continue
		}
		s.stats.accepted.Add(1)
		sessions.Go(func() { s.serveOne(ctx, e, conn) })
	}
}

// serveOne runs one connection and gives its place back.
func (s *Server) serveOne(ctx context.Context, e *entrance, conn net.Conn) {
	defer s.leave(e)
	e.serve(ctx, conn)
}

// acceptFailed waits a little, since a missing descriptor stays missing for a
// while. It reports false when the server ends.
func (s *Server) acceptFailed(ctx context.Context, e *entrance, err error) bool {
	if suppressed, ok := s.acceptLog.allow(time.Now()); ok {
		s.log.Error("accept failed", "local", e.listener.Addr().String(), "suppressed", suppressed, "err", err)
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

// admit takes a place for one application, unless max_connections or the
// descriptors are used up.
func (s *Server) admit(e *entrance) bool {
	s.admission.Lock()
	defer s.admission.Unlock()
	if !e.outside {
		if s.opts.MaxConnections > 0 && s.connections >= int64(s.opts.MaxConnections) {
			return false
		}
		if s.descriptors+e.cost > s.budget {
			return false
		}
		s.connections++
	}
	s.descriptors += e.cost
	return true
}

func (s *Server) leave(e *entrance) {
	s.admission.Lock()
	defer s.admission.Unlock()
	s.descriptors -= e.cost
	if !e.outside {
		s.connections--
	}
}

// grow takes one more descriptor for an application that was admitted, unless
// they are used up.
func (s *Server) grow() bool {
	s.admission.Lock()
	defer s.admission.Unlock()
	if s.descriptors >= s.budget {
		return false
	}
	s.descriptors++
	return true
}

// shrink gives it back.
func (s *Server) shrink() {
	s.admission.Lock()
	defer s.admission.Unlock()
	s.descriptors--
}

// crowded reports whether new applications may soon need the descriptors of those
// that are lost.
func (s *Server) crowded() bool {
	s.admission.Lock()
	defer s.admission.Unlock()
	return s.descriptors > s.budget/4*3
}

// logLimit logs at LOG, as the seed does, but at most once a second.
func (s *Server) logLimit(conn net.Conn, refused int64) {
	if suppressed, ok := s.limitLog.allow(time.Now()); ok {
		s.log.Log(context.Background(), s.opts.LevelLog, "max_connections reached, connection closed",
			"remote", peerName(conn), "max_connections", s.opts.MaxConnections,
			"refused", refused, "suppressed", suppressed)
	}
}

// keepAlive finds remote clients that vanished; loopback ones cannot.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 6}

// listenTCP binds a port on every address; see [listen.TCP].
func listenTCP(addresses []netip.Addr, port uint16) ([]net.Listener, uint16, error) {
	list, port, err := listen.TCP(addresses, port, keepAlive)
	if one, ok := errors.AsType[*listen.Error](err); ok {
		err = listenError(one.Err, one.At.String())
	}
	return list, port, err
}

// listenError says what to do about the usual reason.
func listenError(err error, where string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: the address is in use: is another conmgr running on this port?", where)
	}
	return fmt.Errorf("listen on %s: %w", where, err)
}

// resolveListen turns listen_addresses into addresses. Names get five seconds in all.
func resolveListen(names []string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := listen.Resolve(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("listen_addresses: %w", err)
	}
	return out, nil
}

// listenMark binds the port's mark, an abstract Unix socket that only one
// process of this network namespace can have.
func listenMark(port uint16) (net.Listener, error) {
	name := "@pgconmgr:" + strconv.Itoa(int(port))
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, listenError(err, `the abstract socket \0`+name[1:])
	}
	return l, nil
}

// listenSocket binds conmgr.sock, for conmgr's own user alone.
func listenSocket(path string) (net.Listener, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, listenError(err, path)
	}
	return l, nil
}
