// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Every way of one line leads to the instance, and the connection is named after
// it.
func TestConnect(t *testing.T) {
	primary := mustPostgres(t, nil)
	standby := mustPostgres(t, func(p *postgres) { p.standby = true })
	f := mustFleet(t, instanceOf(3, standby), instanceOf(5, primary))
	dsn := f.dsn("target_session_attrs=primary application_name=shop")

	check := func(how string, conn *pgx.Conn) {
		t.Helper()
		w := WatchOf(conn.PgConn())
		if w == nil {
			t.Fatalf("%s: the connection is not watched", how)
		}
		want := Instance{Number: 5, Host: "db5", HostAddr: "127.0.0.1", Port: primary.port(), Attribute: "primary"}
		if w.Instance() != want || w.Err() != nil {
			t.Errorf("%s: instance %+v, %v; want %+v", how, w.Instance(), w.Err(), want)
		}
		if cfg := conn.Config(); cfg.Host != "db5" || cfg.Port != primary.port() {
			t.Errorf("%s: the configuration names %s:%d", how, cfg.Host, cfg.Port)
		}
		agenttest.Eventually(t, patience, how+": one application, of the primary", func() bool {
			return f.server.Apps().Count() == 1 && f.server.Apps().Bound(1) == 1
		})
	}
	gone := func() {
		agenttest.Eventually(t, patience, "session gone", func() bool { return f.server.Apps().Count() == 0 })
	}

	conn, err := Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	check("Connect", conn)
	if got := primary.startup(); got["application_name"] != "shop" || got["user"] != "app" || got["database"] != "app" {
		t.Errorf("the instance was sent %v", got)
	}
	closeConn(conn)
	gone()

	pool, err := NewPool(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	member, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check("NewPool", member.Conn())
	member.Release()
	pool.Close()
	gone()

	for how, open := range map[string]func() (*sql.DB, error){
		"OpenDB":   func() (*sql.DB, error) { return OpenDB(dsn) },
		"sql.Open": func() (*sql.DB, error) { return sql.Open(DriverName, dsn) },
	} {
		db, err := open()
		if err != nil {
			t.Fatal(err)
		}
		one := mustSQL(t, db)
		if err := one.Raw(func(c any) error { check(how, c.(*stdlib.Conn).Conn()); return nil }); err != nil {
			t.Fatal(err)
		}
		_ = one.Close()
		_ = db.Close()
		gone()
	}
}

// A pool that somebody else makes keeps its own hooks.
func TestConfigurePool(t *testing.T) {
	primary := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, primary))
	cfg, err := ParsePoolConfig(f.dsn("pool_max_conns=2"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		calls = append(calls, fmt.Sprintf("connect %s:%d", c.Host, c.Port))
		return nil
	}
	//lint:ignore SA1019 programs still set it
	cfg.BeforeAcquire = func(context.Context, *pgx.Conn) bool { calls = append(calls, "acquire"); return true }
	ConfigurePool(cfg)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(calls), fmt.Sprintf("[connect localhost:%d acquire]", f.port); got != want {
		t.Errorf("hooks called: %s, want %s", got, want)
	}
}

// All of libpq's values, and the older spelling from wherever it comes.
func TestTargets(t *testing.T) {
	primary := mustPostgres(t, nil)
	standby := mustPostgres(t, func(p *postgres) { p.standby = true })
	f := mustFleet(t, instanceOf(0, primary), instanceOf(1, standby))
	for target, want := range map[string]int{
		"any": 0, "read-write": 0, "primary": 0, "read-only": 1, "standby": 1, "prefer-standby": 1, "prefer-read": 1,
	} {
		for _, how := range []string{"keyword", "environment", "url"} {
			dsn := f.dsn("target_session_attrs=" + target)
			switch how {
			case "environment":
				t.Setenv("PGTARGETSESSIONATTRS", target)
				dsn = f.dsn()
			case "url":
				dsn = fmt.Sprintf("postgres://app@localhost:%d/app?sslmode=disable&default_query_exec_mode=simple_protocol&target_session_attrs=%s", f.port, target)
			}
			conn, err := Connect(t.Context(), dsn)
			t.Setenv("PGTARGETSESSIONATTRS", "")
			if err != nil {
				t.Errorf("%s by %s: %v", target, how, err)
				continue
			}
			if got := WatchOf(conn.PgConn()).Instance().Number; got != want {
				t.Errorf("%s by %s: instance %d, want %d", target, how, got, want)
			}
			closeConn(conn)
		}
	}
	if _, err := Connect(t.Context(), f.dsn("target_session_attrs=moon")); err == nil {
		t.Error("an unknown attribute was taken")
	}
}
