// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// startupTimeout runs from accept to the end of startup.
const startupTimeout = 10 * time.Second

// handshake reads first packets until one opens a session. SSLRequest and
// GSSENCRequest, each at most once, are answered N: the hop is local. Bytes
// behind them were sent before our answer, maybe by somebody else than the
// client (CVE-2021-23222), and end the connection. A cancel request is returned
// with errCancel.
func (s *Server) handshake(in *intake, send func([]byte) error) (startup, error) {
	ssl, gss := true, true
	for {
		body, err := takeStartup(in)
		if err != nil {
			return startup{}, err
		}
		st, err := parseStartup(body, ssl, gss)
		st.raw = body
		if err != nil || st.kind == startupSession {
			return st, err
		}
		switch st.kind {
		case startupCancel:
			return st, errCancel
		case startupSSL:
			ssl = false
		case startupGSS:
			gss = false
		}
		if len(in.buf) > 0 {
			return st, fatal("08P01", "received unencrypted data after an encryption request")
		}
		if err := send([]byte{'N'}); err != nil {
			return st, err
		}
	}
}

// takeStartup takes one first packet, without its length word. The length is
// judged by its first byte already, where that is enough.
func takeStartup(in *intake) ([]byte, error) {
	first, err := in.take(1)
	if err != nil {
		return nil, err
	}
	if first[0] != 0 {
		return nil, checkStartupLength(uint32(first[0]) << 24)
	}
	rest, err := in.take(3)
	if err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32([]byte{0, rest[0], rest[1], rest[2]})
	if err := checkStartupLength(length); err != nil {
		return nil, err
	}
	return in.take(int(length) - 4)
}

// errCancel is a CancelRequest. As in PostgreSQL none is answered.
var errCancel = errors.New("cancel request")

// admitConsole refuses a session that the console is not for.
func (s *Server) admitConsole(st *startup, m *app) error {
	if s.stopping.Load() && m.kind != kindControl {
		return errStopping
	}
	if db := st.database(); db != consoleDatabase {
		return fatal("3D000", "database %q is not served on this socket: the only one is %q", db, consoleDatabase).
			withHint(s.databasesHint())
	}
	return nil
}

// errStopping is for those who come while conmgr ends.
var errStopping = fatal("57P03", "conmgr is shutting down")

// databasesHint names the ports on which databases are reached.
func (s *Server) databasesHint() string {
	hint := fmt.Sprintf("Databases are reached by TCP on port %d (%s)", s.port, s.opts.ProxyTarget)
	for _, p := range s.proxyPorts {
		hint += fmt.Sprintf(", %d (%s)", p.Port, p.Target)
	}
	return hint
}

// refuse ends a connection during startup, telling the client why when it can
// hear it.
func (s *Server) refuse(in *intake, send func([]byte) error, conn stream, err error) {
	switch e, ok := errors.AsType[*pgError](err); {
	case errors.Is(err, errCancel):
		s.stats.cancels.Add(1)
		return
	case err == io.EOF || errors.Is(err, net.ErrClosed):
		return // a port check, connected and left without a word; or killed
	case errors.Is(err, errEnded):
		drain(conn, in)
		return
	case !ok || e == errDirectTLS:
		s.startupFailed(conn, err)
		return
	default:
		if e.code != errStopping.code && e.code != "3D000" {
			s.startupFailed(conn, err)
		}
		if send(appendError(nil, e)) == nil {
			drain(conn, in)
		}
	}
}

// startupFailed counts and, at most once a minute, logs.
func (s *Server) startupFailed(conn net.Conn, err error) {
	s.stats.startupFailed.Add(1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no complete startup packet within %s", startupTimeout)
	}
	if suppressed, ok := s.startupLog.allow(time.Now()); ok {
		s.log.Info("startup failed", "peer", peerName(conn), "suppressed", suppressed, "err", err)
	}
}

func peerName(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil && a.String() != "" {
		return a.String()
	}
	return conn.LocalAddr().Network()
}

// fillRandom fills b with bytes that nobody can guess.
func fillRandom(b []byte) { _, _ = rand.Read(b) } // never fails (Go 1.24)
