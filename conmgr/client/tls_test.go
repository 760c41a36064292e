// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/conmgr"
)

// certificate makes one for a host name or address, signed by itself.
func certificate(t testing.TB, host string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serverTLS is for a server that is named after a host; nil when not wanted.
func serverTLS(t testing.TB, host string, wanted bool) *tls.Config {
	t.Helper()
	if !wanted {
		return nil
	}
	c, _ := certificate(t, host)
	return &tls.Config{Certificates: []tls.Certificate{c}}
}

// mustSecured starts a server with a certificate for a host and returns the file
// that a client verifies it with.
func mustSecured(t testing.TB, host string) (*postgres, string) {
	t.Helper()
	c, ca := certificate(t, host)
	path := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(path, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return mustPostgres(t, func(p *postgres) { p.tls = &tls.Config{Certificates: []tls.Certificate{c}} }), path
}

// The certificate is checked against the instance's name, also when the conmgr
// is named by an address or by a directory, for which pgx makes no TLS.
func TestVerifyFull(t *testing.T) {
	alone := func(p *postgres) conmgr.InstanceView {
		in := instanceOf(0, p)
		in.Host = ""
		return in
	}
	named := func(p *postgres) conmgr.InstanceView { return instanceOf(0, p) }
	for _, tt := range []struct {
		name, host, certificate string
		view                    func(*postgres) conmgr.InstanceView
		sni                     string
		ok                      bool
	}{
		{"backend_host", "localhost", "db0", named, "db0", true},
		{"backend_host, by address", "127.0.0.1", "db0", named, "db0", true},
		{"backend_host, by directory", "/tmp", "db0", named, "db0", true},
		{"address alone", "localhost", "127.0.0.1", alone, "", true},
		{"never that of conmgr", "localhost", "localhost", named, "db0", false},
		{"another host", "localhost", "db1", named, "db0", false},
		{"name where the address stands alone", "localhost", "db0", alone, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, ca := mustSecured(t, tt.certificate)
			f := mustFleet(t, tt.view(p))
			conn, err := Connect(t.Context(), fmt.Sprintf(
				"host=%s port=%d user=app default_query_exec_mode=simple_protocol sslmode=verify-full sslrootcert=%s", tt.host, f.port, ca))
			if err == nil {
				closeConn(conn)
			}
			if (err == nil) != tt.ok {
				t.Errorf("connect: %v, want success %v", err, tt.ok)
			}
			if len(p.names) != 1 && tt.ok || len(p.names) == 1 && p.names[0] != tt.sni {
				t.Errorf("asked for server names %q, want %q", p.names, tt.sni)
			}
		})
	}
}

// The variants of sslmode stay pgx's: prefer falls back to clear text, require
// does not, and a directory does not switch TLS off.
func TestVariants(t *testing.T) {
	for _, tt := range []struct {
		host, mode   string
		secured      bool
		ok, wantName bool
	}{
		{"localhost", "prefer", true, true, true},
		{"localhost", "prefer", false, true, false},
		{"localhost", "allow", true, true, false},
		{"localhost", "require", true, true, true},
		{"localhost", "require", false, false, false},
		{"/tmp", "require", true, true, true},
		{"/tmp", "require", false, false, false},
		{"localhost", "disable", true, true, false},
	} {
		p := mustPostgres(t, func(p *postgres) { p.tls = serverTLS(t, "db0", tt.secured) })
		f := mustFleet(t, instanceOf(0, p))
		conn, err := Connect(t.Context(), fmt.Sprintf(
			"host=%s port=%d user=app default_query_exec_mode=simple_protocol sslmode=%s", tt.host, f.port, tt.mode))
		if err == nil {
			closeConn(conn)
		}
		if (err == nil) != tt.ok || (len(p.names) == 1 && p.names[0] == "db0") != tt.wantName {
			t.Errorf("%+v: %v; server names %q", tt, err, p.names)
		}
	}
}
