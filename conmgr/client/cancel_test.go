// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Cancel requests go to the instance, encrypted when the connection is.
func TestCancel(t *testing.T) {
	for _, mode := range []string{"disable", "require"} {
		p := mustPostgres(t, func(p *postgres) { p.tls = serverTLS(t, "db0", mode == "require") })
		f := mustFleet(t, instanceOf(0, p))
		conn := mustConnect(t, &std, f.dsn("sslmode="+mode))
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
		agenttest.Eventually(t, patience, "cancelled", func() bool { return p.count(cancels) == 1 })
		if n := p.count(accepted); n != 2 {
			t.Errorf("sslmode=%s: %d connections, want the session and the request", mode, n)
		}
		if p.tls != nil && len(p.names) != 2 {
			t.Errorf("a cancel request in clear text beside an encrypted session")
		}
	}
}

// A context that ends stops a statement, also by a cancel request, and a connect
// at every step.
func TestContext(t *testing.T) {
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	cfg, err := ParseConfig(f.dsn())
	if err != nil {
		t.Fatal(err)
	}
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: patience}
	}
	conn, err := ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, err := conn.Exec(ctx, "block"); t.Logf("statement: %v", err) }()
	agenttest.Eventually(t, patience, "begun", func() bool { return p.count(blocking) == 1 })
	cancel()
	agenttest.Eventually(t, patience, "cancelled", func() bool { return p.count(cancels) == 1 })
	p.closeAll()
	<-WatchOf(conn.PgConn()).Done()

	if _, err := Connect(ctx, f.dsn()); !errors.Is(err, context.Canceled) {
		t.Errorf("connect with a context that has ended: %v", err)
	}
	agenttest.Eventually(t, patience, "no session left", func() bool { return f.server.Apps().Count() == 0 })
}

// TLS that the program has chosen for itself stays.
func TestOwnServerName(t *testing.T) {
	p, _ := mustSecured(t, "cluster")
	f := mustFleet(t, instanceOf(0, p))
	cfg, err := ParseConfig(f.dsn("sslmode=require"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLSConfig = &tls.Config{ServerName: "cluster", InsecureSkipVerify: true}
	conn, err := ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeConn(conn)
	if len(p.names) != 1 || p.names[0] != "cluster" {
		t.Errorf("asked for %q", p.names)
	}
}
