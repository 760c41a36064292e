// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"strings"
	"testing"
)

// MustLab makes a lab that ends with the test; when the test fails, it prints
// the end of every process's log. It skips where NeedLab does.
func MustLab(t testing.TB, hosts ...string) *Lab {
	t.Helper()
	return MustLabWith(t, Options{Hosts: hosts})
}

// MustLabWith is MustLab with all options.
func MustLabWith(t testing.TB, o Options) *Lab {
	t.Helper()
	NeedLab(t)
	if len(o.Tap) > 0 {
		NeedTap(t)
	}
	l, err := NewWith(t.Context(), o)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() { closeAfterTest(t, l) })
	return l
}

func closeAfterTest(t testing.TB, l *Lab) {
	t.Helper()
	if t.Failed() {
		l.printLogs(t)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close lab: %v", err)
	}
}

// printLogs shows the end of each log file once.
func (l *Lab) printLogs(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := make(map[string]bool)
	for _, p := range l.processes {
		if shown[p.LogPath] {
			continue
		}
		shown[p.LogPath] = true
		text, err := p.Log()
		if err != nil {
			text = err.Error()
		}
		t.Logf("log of %s on %s:\n%s", p.Name, p.host.Name, tail(text, 60))
	}
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// MustPostgres starts an instance on the host. It skips where NeedPostgres
// does.
func MustPostgres(t testing.TB, h *Host, o PostgresOptions) *Postgres {
	t.Helper()
	NeedPostgres(t)
	p, err := h.Postgres(t.Context(), o)
	if err != nil {
		t.Fatalf("postgres on %s: %v", h.Name, err)
	}
	return p
}

// MustPair starts a primary and its streaming standby.
func MustPair(t testing.TB, primary, standby *Host) (*Postgres, *Postgres) {
	t.Helper()
	p := MustPostgres(t, primary, PostgresOptions{})
	s := MustPostgres(t, standby, PostgresOptions{StreamFrom: p})
	if err := s.WaitStreaming(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p, s
}

// MustStart starts a process on the host.
func MustStart(t testing.TB, h *Host, spec Spec) *Process {
	t.Helper()
	p, err := h.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// MustFault applies a fault, as in MustFault(t, db1.Cut), and returns when it
// took effect.
func MustFault(t testing.TB, fault func(context.Context) (Effect, error)) Effect {
	t.Helper()
	e, err := fault(t.Context())
	if err != nil {
		t.Fatalf("fault: %v", err)
	}
	return e
}

// MustExec runs SQL as superuser.
func MustExec(t testing.TB, p *Postgres, sql string, args ...any) {
	t.Helper()
	if err := p.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// MustQuery returns the values of the statement's first column as text.
func MustQuery(t testing.TB, p *Postgres, sql string, args ...any) []string {
	t.Helper()
	values, err := p.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

// MustDropped reads the counters of the host's faults.
func MustDropped(t testing.TB, h *Host) Dropped {
	t.Helper()
	d, err := h.Dropped(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
