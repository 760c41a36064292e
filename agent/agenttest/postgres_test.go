// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"slices"
	"testing"
	"time"
)

func TestPairStreamsAndPromotes(t *testing.T) {
	l := MustLab(t)
	start := time.Now()
	primary, standby := MustPair(t, l.Host("db1"), l.Host("db2"))
	t.Logf("primary and standby up after %v", time.Since(start).Round(time.Millisecond))

	MustExec(t, primary, "CREATE TABLE t AS SELECT 7 AS n")
	Eventually(t, 10*time.Second, "table on the standby", func() bool {
		got, err := standby.Query(t.Context(), "SELECT to_regclass('t')")
		return err == nil && slices.Equal(got, []string{"t"})
	})
	MustFault(t, standby.Promote)
	MustExec(t, standby, "INSERT INTO t VALUES (8)")

	how, err := primary.Rejoin(t.Context(), standby)
	if err != nil {
		t.Fatalf("rejoin: %v", err)
	}
	t.Logf("old primary rejoined: %s", how)
	Eventually(t, 10*time.Second, "new row on the old primary", func() bool {
		got, err := primary.Query(t.Context(), "SELECT n FROM t ORDER BY n")
		return err == nil && slices.Equal(got, []string{"7", "8"})
	})
}

func TestPostgresKill9AndRestart(t *testing.T) {
	l := MustLab(t, "db1")
	p := MustPostgres(t, l.Host("db1"), PostgresOptions{Conf: map[string]string{"watchdog.port": "27545"}})
	if got := MustQuery(t, p, "SHOW watchdog.port"); !slices.Equal(got, []string{"27545"}) {
		t.Errorf("watchdog.port = %q", got)
	}
	MustFault(t, p.Kill9)
	if err := p.Exec(t.Context(), "SELECT"); err == nil {
		t.Error("the instance answers after kill -9")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatalf("start after kill -9: %v", err)
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatalf("restart: %v", err)
	}
}

func TestFreshInstanceHasItsOwnSystemIdentifier(t *testing.T) {
	l := MustLab(t, "db1")
	const sql = "SELECT system_identifier FROM pg_control_system()"
	a := MustPostgres(t, l.Host("db1"), PostgresOptions{})
	b := MustPostgres(t, l.Host("db1"), PostgresOptions{Name: "other", Port: 5433, Fresh: true})
	if x, y := MustQuery(t, a, sql), MustQuery(t, b, sql); slices.Equal(x, y) {
		t.Errorf("both have system identifier %v", x)
	}
}

// Queries share a backend, and find another one when it has ended.
func TestQueryKeepsItsConnection(t *testing.T) {
	l := MustLab(t, "db1")
	p := MustPostgres(t, l.Host("db1"), PostgresOptions{})
	const who = "SELECT pg_backend_pid()"
	first := MustQuery(t, p, who)
	if again := MustQuery(t, p, who); !slices.Equal(first, again) {
		t.Errorf("backends %v and %v: expected one", first, again)
	}
	if err := p.Exec(t.Context(), "SELECT pg_terminate_backend("+first[0]+", 10000)"); err != nil {
		t.Fatal(err)
	}
	if other := MustQuery(t, p, who); slices.Equal(first, other) {
		t.Error("the same backend after its end")
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	MustQuery(t, p, who)
}
