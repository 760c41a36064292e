// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// SSLMode is proxy_sslmode: TLS between conmgr and an instance, with libpq's
// words and meanings but for one. With prefer, libpq turns to clear text also
// when TLS was offered and failed; then whoever can disturb a handshake gets to
// read the passwords. Here such a failure is one of the connect: clear text is
// only spoken to an instance that said it has no TLS.
type SSLMode uint8

// Values of proxy_sslmode.
const (
	SSLPrefer     SSLMode = iota // TLS where the instance offers it
	SSLDisable                   // never
	SSLRequire                   // always
	SSLVerifyCA                  // always, with a certificate of a known authority
	SSLVerifyFull                // the same, for the name of the instance
)

var sslModeNames = [...]string{"prefer", "disable", "require", "verify-ca", "verify-full"}

// sslModeWords are the names in libpq's order.
var sslModeWords = []string{"disable", "prefer", "require", "verify-ca", "verify-full"}

// String returns the word of the configuration file.
func (m SSLMode) String() string {
	if int(m) < len(sslModeNames) {
		return sslModeNames[m]
	}
	return "invalid"
}

// ParseSSLMode reads a value of proxy_sslmode.
func ParseSSLMode(s string) (SSLMode, error) {
	if i := slices.Index(sslModeNames[:], s); i >= 0 {
		return SSLMode(i), nil
	}
	return SSLPrefer, fmt.Errorf("unknown proxy_sslmode %q: expected disable, prefer, require, verify-ca or verify-full", s)
}

// systemRoots as proxy_sslrootcert means the authorities that the system trusts.
const systemRoots = "system"

// LoadRoots reads proxy_sslrootcert: nil for an empty name.
func LoadRoots(file string) (*x509.CertPool, error) {
	switch file {
	case "":
		return nil, nil
	case systemRoots:
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("proxy_sslrootcert: the system's certificates: %w", err)
		}
		return pool, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("proxy_sslrootcert: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("proxy_sslrootcert: %s has no certificate in PEM form", file)
	}
	return pool, nil
}

// security is how the hop to one instance is protected.
type security struct {
	tls      *tls.Config // nil: clear text
	required bool
	turns    turns
}

// securityOf returns how the hop to an instance is protected. As in libpq a
// given authority is asked in every mode.
func (s *Server) securityOf(n *InstanceView) security {
	mode, roots := s.opts.ProxySSLMode, s.opts.ProxyRoots
	if mode == SSLDisable {
		return security{}
	}
	name := n.Host
	if name == "" {
		name = n.Addr.WithZone("").String()
	}
	c := &tls.Config{
		ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"postgresql"}, // as libpq from 17 on; older servers ignore it
	}
	if mode != SSLVerifyFull {
		// The name does not count. What crypto/tls does then is nothing.
		c.InsecureSkipVerify = true
		if roots != nil || mode == SSLVerifyCA {
			c.VerifyConnection = func(st tls.ConnectionState) error { return verifyChain(st, roots) }
		}
	}
	return security{tls: c, required: mode != SSLPrefer, turns: s.turns}
}

// verifyChain checks the server's certificate, its name aside.
func verifyChain(st tls.ConnectionState, roots *x509.CertPool) error {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range st.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := st.PeerCertificates[0].Verify(o)
	return err
}

// secure opens a hop on a new connection: SSLRequest, its answer, TLS. It is
// broken off when ctx ends.
func (sec security) secure(ctx context.Context, conn *net.TCPConn) (*hop, error) {
	if sec.tls == nil {
		return &hop{tcp: conn}, nil
	}
	answer, err := askTLS(ctx, conn)
	if err != nil {
		return nil, err
	}
	switch {
	case answer == 'S':
		return sec.handshake(ctx, conn)
	case answer == 'N' && !sec.required:
		return &hop{tcp: conn}, nil
	case answer == 'N':
		return nil, errors.New("it has no TLS, which proxy_sslmode demands")
	case answer == 'E': // its text could be anybody's (CVE-2024-10977)
		return nil, errors.New("it answered SSLRequest with an error")
	}
	return nil, fmt.Errorf("it answered SSLRequest with %q: is it PostgreSQL?", answer)
}

// askTLS sends SSLRequest and reads the one byte that answers it, and not one
// behind it: what was sent with it in clear text must not pass for what was
// encrypted (CVE-2021-23222).
func askTLS(ctx context.Context, conn *net.TCPConn) (answer byte, err error) {
	request := binary.BigEndian.AppendUint32(nil, 8)
	request = binary.BigEndian.AppendUint32(request, sslCode)
	var b [1]byte
	err = within(ctx, conn, "its answer to SSLRequest", func() error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		_, err := conn.Read(b[:])
		return err
	})
	return b[0], err
}

func (sec security) handshake(ctx context.Context, conn *net.TCPConn) (*hop, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	h := &hop{tcp: conn, under: &quietConn{TCPConn: conn, raw: raw, turns: sec.turns}}
	h.secure = tls.Client(h.under, sec.tls)
	sec.turns.take()
	err = within(ctx, conn, "the end of the TLS handshake", h.secure.Handshake)
	h.under.turns = nil
	sec.turns.give()
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return h, nil
}

// within does something with a connection that ends with ctx at the latest, and
// leaves no deadline behind. what is waited for.
func within(ctx context.Context, conn net.Conn, what string, do func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := do()
	if !stop() {
		return fmt.Errorf("%s did not come in time", what)
	}
	return err
}
