// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// TestProxyClearText looks at all packets between the client host and the instance:
// no startup packet, nor the key of a cancel request, crosses the network in clear
// text where the instance offers TLS, whatever proxy_sslmode says but disable. With
// disable it does, which shows that the test would see it.
func TestProxyClearText(t *testing.T) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := fast()
	calm(&s)
	s.noStandby, s.noConmgr = true, true
	w := newWorld(t, s)
	rootcert := w.enableTLS(w.primary)
	seen := w.watchPackets(w.client, w.primary.Port)
	for i, mode := range []string{"disable", "prefer", "require", "verify-ca", "verify-full"} {
		port := 27600 + i
		params := map[string]string{"port": fmt.Sprint(port), "proxy_listen": "''", "proxy_sslmode": mode}
		if strings.HasPrefix(mode, "verify-") {
			params["proxy_sslrootcert"] = "'" + rootcert + "'"
		}
		w.awaitMonitored(w.startConmgrAs(w.client, mode, params))
		user := "clear_text_" + mode
		agenttest.MustExec(w, w.primary, fmt.Sprintf("CREATE ROLE %q LOGIN", user))
		a := w.openAs(user, w.client, port)
		encrypted := a.value("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
		key := w.cancelSleep(a)
		if want := fmt.Sprint(mode != "disable"); encrypted != want {
			t.Errorf("%s: TLS is %s, want %s", mode, encrypted, want)
		}
		for what, text := range map[string][]byte{"the user name": []byte(user + "\x00"), "the cancel key": key} {
			if got := seen.contains(t, text); got != (mode == "disable") {
				t.Errorf("%s: %s was seen in clear text: %v", mode, what, got)
			}
		}
	}
}

// cancelSleep cancels a statement and returns the pid and key of the request.
func (w *world) cancelSleep(a *app) []byte {
	w.Helper()
	a.begin("SELECT pg_sleep(3600)")
	w.expect("the cancelled statement has ended", func() bool {
		w.must(a.conn.PgConn().CancelRequest(w.Context())) // it may come before the statement
		return a.hasEnded()
	})
	if end := a.ended("cancelled statement"); end.code() != "57014" {
		w.failf("the cancelled statement ended with %v: expected 57014", end.err)
	}
	return append(binary.BigEndian.AppendUint32(nil, a.pid), a.conn.PgConn().SecretKey()...)
}

// packets are the payloads that were seen on a port.
type packets struct {
	capture *agenttest.Capture

	mu  sync.Mutex // guards the following
	all [][]byte
}

func (w *world) watchPackets(h *agenttest.Host, port uint16) *packets {
	w.Helper()
	p := new(packets)
	var err error
	p.capture, err = h.CaptureEach(port, func(seen agenttest.Packet) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all = append(p.all, bytes.Clone(seen.Payload))
	})
	w.must(err)
	w.Cleanup(func() { _ = p.capture.Close() })
	return p
}

// contains reports whether any packet until now had the text, and fails the test
// when packets were missed.
func (p *packets) contains(t *testing.T, text []byte) bool {
	t.Helper()
	received, sent, err := p.capture.Frames(netip.Addr{})
	if err != nil || received == 0 || sent == 0 {
		t.Fatalf("captured %d packets received, %d sent: %v", received, sent, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, payload := range p.all {
		if bytes.Contains(payload, text) {
			return true
		}
	}
	return false
}

// TestProxyStrangers: peers on other hosts are told that they are not passed on,
// unless proxy_allow lists them; the console stays open for them.
func TestProxyStrangers(t *testing.T) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := fast()
	calm(&s)
	s.noStandby = true
	s.conmgr["listen_addresses"] = "'*'"
	s.conmgr["proxy_allow"] = "'10.99.0.2'"
	w := newWorld(t, s)
	connect := func(h *agenttest.Host, database string) error {
		cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%v port=%d user=postgres dbname=%s connect_timeout=5", w.client.Addr4, portConsole, database))
		w.must(err)
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) }
		conn, err := pgx.ConnectConfig(w.Context(), cfg)
		if err == nil {
			closeSoon(conn)
		}
		return err
	}
	if err := connect(w.db1, "postgres"); err != nil {
		t.Errorf("a peer in proxy_allow: %v", err)
	}
	err := connect(w.db2, "postgres")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "28000" || e.Hint == "" {
		t.Errorf("a stranger: %v, want 28000 with a hint", err)
	}
	if err := connect(w.db2, "conmgr"); err != nil {
		t.Errorf("a stranger at the console: %v", err)
	}
}
