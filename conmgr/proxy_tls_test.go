// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// What each mode makes of each kind of instance: it is reached over TLS, in clear
// text, or not at all. In no case does an instance that offered TLS get to read
// the first packet in clear text.
func TestProxySSLModes(t *testing.T) {
	good := mustAuthority(t, []string{"db1"})
	otherName, otherRoot := mustAuthority(t, []string{"db2"}), mustAuthority(t, []string{"db1"})
	for _, tt := range []struct {
		name   string
		mode   SSLMode
		roots  *authority // nil: none given
		server *authority // nil: no TLS
		want   string     // TLS, clear, or a part of the error
	}{
		{"disable", SSLDisable, nil, good, "clear"},
		{"prefer, offered", SSLPrefer, nil, good, "TLS"},
		{"prefer, not offered", SSLPrefer, nil, nil, "clear"},
		{"prefer, authority, good", SSLPrefer, good, otherName, "certificate signed by unknown authority"},
		{"require, offered", SSLRequire, nil, otherName, "TLS"},
		{"require, not offered", SSLRequire, nil, nil, "it has no TLS, which proxy_sslmode demands"},
		{"require, authority", SSLRequire, good, otherRoot, "certificate signed by unknown authority"},
		{"verify-ca, good", SSLVerifyCA, otherName, otherName, "TLS"},
		{"verify-ca, not offered", SSLVerifyCA, good, nil, "it has no TLS"},
		{"verify-ca, bad", SSLVerifyCA, good, otherRoot, "certificate signed by unknown authority"},
		{"verify-ca, no authority given", SSLVerifyCA, nil, good, "x509: "},
		{"verify-full, good", SSLVerifyFull, good, good, "TLS"},
		{"verify-full, name", SSLVerifyFull, otherName, otherName, "certificate is valid for db2, not db1"},
		{"verify-full, authority", SSLVerifyFull, good, otherRoot, "certificate signed by unknown authority"},
		{"verify-full, not offered", SSLVerifyFull, good, nil, "it has no TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := mustBackend(t)
			f := mustProxy(t, func(o *ServerOptions) {
				o.ProxySSLMode = tt.mode
				if tt.roots != nil {
					o.ProxyRoots = tt.roots.roots
				}
			}, b.at())
			client := f.mustAsk(t, appPacket)
			met := make(chan string, 1)
			go func() { met <- meet(b, tt.server) }()
			got := <-met
			if tt.want == "TLS" || tt.want == "clear" {
				if got != tt.want {
					t.Errorf("the instance was met by %s, want %s", got, tt.want)
				}
				return
			}
			if e := mustRefused(t, client); e.code != "57P03" || !strings.Contains(e.message, tt.want) {
				t.Errorf("the client was told %v, want 57P03 %s", e, tt.want)
			}
			if got == "TLS" || got == "clear" {
				t.Errorf("the instance was met by %s, want not at all", got)
			}
		})
	}
}

// meet plays an instance, without TLS when a is nil, until it has read the first
// packet, and says how that came.
func meet(b *backend, a *authority) string {
	conn := inTime(<-b.accepted)
	defer func() { _ = conn.Close() }()
	first := make([]byte, len(appPacket))
	if _, err := io.ReadFull(conn, first[:8]); err != nil {
		return err.Error()
	}
	how := "clear"
	if string(first[:8]) == string(framed(packet(sslCode, ""))) {
		answer := []byte{'S'}
		if a == nil {
			answer[0] = 'N'
		}
		_, _ = conn.Write(answer)
		if a != nil {
			conn, how = tls.Server(conn, a.server), "TLS"
		}
		if _, err := io.ReadFull(conn, first[:8]); err != nil {
			return err.Error()
		}
	}
	if _, err := io.ReadFull(conn, first[8:]); err != nil || string(first) != string(appPacket) {
		return "garbage"
	}
	return how
}

// An address that stands alone is the name that the certificate must have. conmgr
// names itself as libpq does: ALPN, and SNI for names only.
func TestProxyVerifyAddress(t *testing.T) {
	a := mustAuthority(t, nil, netip.MustParseAddr("127.0.0.1"))
	a.server.NextProtos = []string{"postgresql"}
	hello := make(chan *tls.ClientHelloInfo, 1)
	a.server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello <- h
		return nil, nil
	}
	b := mustBackend(t)
	f := mustProxy(t, func(o *ServerOptions) { o.ProxySSLMode, o.ProxyRoots = SSLVerifyFull, a.roots }, b.at())
	alone := f.picture.View().Instances[0]
	alone.Host = ""
	f.picture.set(alone)
	f.mustAsk(t, appPacket)
	if got := meet(b, a); got != "TLS" {
		t.Errorf("the instance was met by %s, want TLS", got)
	}
	if h := <-hello; h.ServerName != "" || len(h.SupportedProtos) != 1 || h.SupportedProtos[0] != "postgresql" {
		t.Errorf("ClientHello names %q and %q, want no name and postgresql", h.ServerName, h.SupportedProtos)
	}
	named := alone
	named.Host = "db1"
	f.picture.set(named)
	client := f.mustAsk(t, appPacket)
	_ = meet(b, a)
	if e := mustRefused(t, client); !strings.Contains(e.message, "db1") {
		t.Errorf("told %v, want that the certificate is not for db1", e)
	}
	if h := <-hello; h.ServerName != "db1" {
		t.Errorf("ClientHello names %q, want db1", h.ServerName)
	}
}

// An instance that answers the SSLRequest badly costs the attempt, no more: the
// next candidate is taken.
func TestProxyBadAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want string
	}{
		{"error", "EFATAL: sorry, too many clients already\x00", "it answered SSLRequest with an error"},
		{"garbage", "HTTP/1.1 400 Bad Request\r\n\r\n", "it answered SSLRequest with 'H': is it PostgreSQL?"},
		{"close", "", "EOF"},
		{"clear text behind S", "SR\x00\x00\x00\x08\x00\x00\x00\x00", "TLS: "},
		{"stall", "stall", "its answer to SSLRequest did not come in time"},
		{"stall in TLS", "Sstall", "TLS: the end of the TLS handshake did not come in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad, good := mustBackend(t), mustBackend(t)
			f := mustProxy(t, func(o *ServerOptions) { o.ConnectTimeout = 300 * time.Millisecond }, bad.at(), good.at())
			client := f.mustAsk(t, appPacket)
			conn := bad.mustTake(t)
			mustRead(t, conn, framed(packet(sslCode, "")))
			answer, stalls := strings.CutSuffix(tt.answer, "stall")
			mustWrite(t, conn, []byte(answer))
			if !stalls {
				_ = conn.CloseWrite()
			}
			if got := meet(good, nil); got != "clear" {
				t.Errorf("the next candidate was met by %s", got)
			}
			_ = client.Close()
			only := f.picture.View().Instances[:1]
			f.picture.set(only...)
			client = f.mustAsk(t, appPacket)
			conn = bad.mustTake(t)
			mustRead(t, conn, framed(packet(sslCode, "")))
			mustWrite(t, conn, []byte(answer))
			if !stalls {
				_ = conn.CloseWrite()
			}
			if e := mustRefused(t, client); e.code != "57P03" || !strings.Contains(e.message, tt.want) || strings.Contains(e.message, "sorry") {
				t.Errorf("told %v, want %s", e, tt.want)
			}
		})
	}
}

// Bytes pass over TLS in any sizes, many at once and one by one, both ways, and
// each end of a direction leaves the other alone.
func TestProxyOverTLS(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a.server.MaxVersion = version
		b := mustBackend(t)
		f := mustProxy(t, nil, b.at())
		client, conn := f.mustMeet(t, func() net.Conn { return a.mustOffer(t, b) }, "pid0key0")
		server := conn.(*tls.Conn)
		for i := range 200 { // in turn
			mustWrite(t, client, []byte{byte(i)})
			mustRead(t, server, []byte{byte(i)})
			mustWrite(t, server, []byte{byte(i + 1)})
			mustRead(t, client, []byte{byte(i + 1)})
		}
		block := []byte(strings.Repeat("0123456789abcdef", 20_000))
		for n := 1; n < len(block); n = n*5 + 3 {
			done := make(chan struct{})
			go func() { defer close(done); _, _ = server.Write(block[:n]) }()
			mustRead(t, client, block[:n])
			<-done
			go func() { _, _ = client.Write(block[:n]) }()
			mustRead(t, server, block[:n])
		}
		_ = client.CloseWrite()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("TLS %x: the instance read %v, want the end", version, err)
		}
		mustWrite(t, server, []byte("last words"))
		_ = server.CloseWrite()
		if got := mustEnd(t, client); string(got) != "last words" {
			t.Errorf("TLS %x: the client read %q", version, got)
		}
		eventually(t, "the application has gone", func() bool { return f.Apps().Count() == 0 })
	}
}

// The offer of channel binding is kept from a client whose own hop has no TLS.
func TestProxyUnbinds(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	b := mustBackend(t)
	f := mustProxy(t, nil, b.at())
	client := f.mustAsk(t, appPacket)
	server := a.mustOffer(t, b)
	mustRead(t, server, appPacket)
	mustWrite(t, server, said('R', mechanisms))
	mustRead(t, client, said('R', unbound))
	plain := f.mustAsk(t, appPacket)
	conn := b.mustTake(t)
	mustRead(t, conn, framed(packet(sslCode, "")))
	mustWrite(t, conn, []byte{'N'})
	mustRead(t, conn, appPacket)
	mustWrite(t, conn, said('R', mechanisms))
	mustRead(t, plain, said('R', mechanisms))
}

func TestLoadRoots(t *testing.T) {
	dir := t.TempDir()
	crt, key := mustCertificate(t, []string{"db1"})
	for name, text := range map[string][]byte{"crt": crt, "key": key, "empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pool, err := LoadRoots(""); pool != nil || err != nil {
		t.Errorf("none: %v, %v", pool, err)
	}
	for _, name := range []string{filepath.Join(dir, "crt"), "system"} {
		if pool, err := LoadRoots(name); pool == nil || err != nil {
			t.Errorf("%s: %v, %v", name, pool, err)
		}
	}
	for name, want := range map[string]string{"key": "has no certificate in PEM form", "empty": "has no certificate", "missing": "no such file"} {
		if _, err := LoadRoots(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "proxy_sslrootcert") {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// An instance that stalls in its handshake keeps nobody else from theirs.
func TestProxyHandshakeTurns(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	stalls, good := mustBackend(t), mustBackend(t)
	f := mustProxy(t, nil, stalls.at())
	for range cap(f.turns) + 2 {
		f.mustAsk(t, appPacket)
		conn := stalls.mustTake(t)
		mustRead(t, conn, framed(packet(sslCode, "")))
		mustWrite(t, conn, []byte{'S'})
		mustRead(t, conn, []byte{tlsFirstByte}) // of its ClientHello
	}
	next := instance(2, good.at(), wire.AttributePrimary)
	f.picture.set(next)
	f.mustMeet(t, func() net.Conn { return a.mustOffer(t, good) }, "pid0key0")
	if len(f.turns) != 0 {
		t.Errorf("%d turns are taken, want none", len(f.turns))
	}
}
