// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// The password file is asked for the instance, not for conmgr; what is written
// elsewhere or set by the program wins.
func TestPasswords(t *testing.T) {
	p := mustPostgres(t, func(p *postgres) { p.password = "right" })
	f := mustFleet(t, instanceOf(0, p))
	alone := instanceOf(0, p)
	alone.Host = ""
	bare := mustFleet(t, alone)
	for _, tt := range []struct {
		name, passfile, more string
		port                 uint16
		change               func(*pgx.ConnConfig)
		want                 string
	}{
		{"backend_host", "localhost:*:*:*:wrong\ndb0:%d:*:*:right\n", "", f.port, nil, "right"},
		{"address alone", "localhost:*:*:*:wrong\n127.0.0.1:%d:*:*:right\n", "", bare.port, nil, "right"},
		{"in the string", "*:*:*:*:wrong\n", "password=right", f.port, nil, "right"},
		{"set by the program", "*:*:*:*:wrong\n", "", f.port, func(c *pgx.ConnConfig) { c.Password = "right" }, "right"},
		{"only for conmgr", "localhost:*:*:*:right\n", "", f.port, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pgpass")
			text := tt.passfile
			if i := slices.Index([]byte(text), '%'); i >= 0 {
				text = fmt.Sprintf(text, p.port())
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := ParseConfig(fmt.Sprintf("host=localhost port=%d %s passfile=%s %s", tt.port, plain, file, tt.more))
			if err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(cfg)
			}
			conn, err := ConnectConfig(t.Context(), cfg)
			if err == nil {
				closeConn(conn)
			}
			p.mu.Lock()
			got := p.passwords[len(p.passwords)-1]
			p.mu.Unlock()
			if got != tt.want || (err == nil) != (tt.want == "right") {
				t.Errorf("sent password %q, want %q: %v", got, tt.want, err)
			}
		})
	}
}

// Each instance of an answer gets its own password, and a postmaster behind them
// the one that pgx has found.
func TestPasswordPerInstance(t *testing.T) {
	servers := make([]*postgres, 3)
	text := ""
	for i := range servers {
		servers[i] = mustPostgres(t, func(p *postgres) { p.password = fmt.Sprintf("secret%d", i) })
		if i < 2 {
			text += fmt.Sprintf("db%d:*:*:*:secret%d\n", i, i)
		}
	}
	servers[0].readOnly, servers[1].readOnly = true, true // pgx finds them unfit, and goes on
	one, two := instanceOf(0, servers[0]), instanceOf(1, servers[1])
	one.Instance = wire.Instance{Attribute: wire.AttributePrimary, Status: wire.StatusUp}
	two.Instance = one.Instance
	f := mustFleet(t, one, two)
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte(text+"localhost:*:*:*:secret2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := mustConnect(t, &std, fmt.Sprintf("host=localhost,localhost port=%d,%d %s passfile=%s target_session_attrs=read-write",
		f.port, servers[2].port(), plain, file))
	if WatchOf(conn.PgConn()) != nil {
		t.Error("connected to an instance that is read-only")
	}
	if cfg := conn.Config(); cfg.Host == "db1" || cfg.Password != "secret2" {
		t.Errorf("the configuration still names host %s", cfg.Host)
	}
	for i, p := range servers {
		if len(p.passwords) != 1 || p.passwords[0] != fmt.Sprintf("secret%d", i) {
			t.Errorf("server %d was sent %q", i, p.passwords)
		}
	}
}

// Parameters are added to both forms of a connection string, and count.
func TestOverride(t *testing.T) {
	for _, s := range []string{
		"", "host=a,b port=1,2", `host=a password='it\'s' `, `host=a password=b\ c`,
		"postgres://", "postgres://u@a:1,b:2", "postgresql://u:p@a/db", "postgres://u:p?q@a/db", "postgres://u@[::1]:5/db?sslmode=disable",
		"postgres://u@a?host=c&port=9", "postgres:///db?host=/tmp",
	} {
		before, err := pgx.ParseConfig(s)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		after, err := pgx.ParseConfig(override(s, "host", "db 1", "port", "77", "application_name", `it's \ %&`))
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if after.Host != "db 1" || after.Port != 77 || after.RuntimeParams["application_name"] != `it's \ %&` {
			t.Errorf("%q: host %q, port %d, %q", s, after.Host, after.Port, after.RuntimeParams)
		}
		if after.User != before.User || after.Database != before.Database || after.Password != before.Password {
			t.Errorf("%q: the rest has changed: %s %s %s", s, after.User, after.Database, after.Password)
		}
	}
}
