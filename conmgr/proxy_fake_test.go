// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// mustProxy runs a server whose proxy mode leads to a primary among instances at
// the given addresses.
func mustProxy(t testing.TB, change func(*ServerOptions), at ...netip.AddrPort) *fixture {
	t.Helper()
	f := mustServe(t, func(o *ServerOptions) {
		o.ProxyTarget = Primary
		if change != nil {
			change(o)
		}
	})
	var list []InstanceView
	for i, a := range at {
		list = append(list, instance(i+1, a, wire.AttributePrimary))
	}
	f.picture.set(list...)
	return f
}

// clearText is for tests in which TLS is not the subject.
func clearText(o *ServerOptions) { o.ProxySSLMode = SSLDisable }

// appPacket is the first packet of an application.
var appPacket = framed(packet(protocol30, "user\x00app\x00database\x00db\x00\x00"))

// used is how many descriptors applications are accounted for.
func (f *fixture) used() int64 {
	f.admission.Lock()
	defer f.admission.Unlock()
	return f.descriptors
}

// mustAsk opens a connection to the application port and sends a first packet.
func (f *fixture) mustAsk(t testing.TB, first []byte) *net.TCPConn {
	t.Helper()
	conn := mustDial(t, "tcp", f.address()).(*net.TCPConn)
	mustWrite(t, conn, first)
	return conn
}

// mustRead reads exactly what is expected.
func mustRead(t testing.TB, conn net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

// authority is a certificate that is its own authority.
type authority struct {
	server *tls.Config
	roots  *x509.CertPool
}

func mustAuthority(t testing.TB, names []string, addrs ...netip.Addr) *authority {
	t.Helper()
	crt, key := mustCertificate(t, names, addrs...)
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{server: &tls.Config{Certificates: []tls.Certificate{pair}}, roots: x509.NewCertPool()}
	a.roots.AppendCertsFromPEM(crt)
	return a
}

// mustOffer answers SSLRequest with S on the next connection of an instance and
// returns its TLS side.
func (a *authority) mustOffer(t testing.TB, b *backend) *tls.Conn {
	t.Helper()
	conn := b.mustTake(t)
	mustRead(t, conn, framed(packet(sslCode, "")))
	mustWrite(t, conn, []byte{'S'})
	return tls.Server(conn, a.server)
}

// greetings of an instance: authentication, key, ready.
func greetings(key string) []byte {
	b := append(said('R', "\x00\x00\x00\x00"), said('K', key)...)
	return append(b, said('Z', "I")...)
}

// mustMeet opens a proxied session and returns both its ends after the greeting.
func (f *fixture) mustMeet(t testing.TB, take func() net.Conn, key string) (client *net.TCPConn, server net.Conn) {
	t.Helper()
	client = f.mustAsk(t, appPacket)
	server = take()
	mustRead(t, server, appPacket)
	mustWrite(t, server, greetings(key))
	mustRead(t, client, greetings(key))
	return client, server
}

// mustRefused reads the error that ends a connection and returns it.
func mustRefused(t testing.TB, conn net.Conn) *pgError {
	t.Helper()
	got := mustEnd(t, conn)
	if len(got) < 5 || got[0] != 'E' {
		t.Fatalf("the answer is %q, want an error", got)
	}
	e := new(pgError)
	for field := range bytes.SplitSeq(got[5:], []byte{0}) {
		if len(field) == 0 {
			continue
		}
		switch text := string(field[1:]); field[0] {
		case 'S':
			e.severity = text
		case 'C':
			e.code = text
		case 'M':
			e.message = text
		case 'H':
			e.hint = text
		}
	}
	return e
}

// inTime bounds what a test does with a raw connection.
func inTime(conn net.Conn) net.Conn {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}
