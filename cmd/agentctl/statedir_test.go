// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateDirOfTheOnlyAgent(t *testing.T) {
	for _, tt := range []struct {
		name, named, have, want, wantErr string
	}{
		{"a host without any", "", "", defaultStateDir, ""},
		{"started by hand", "", "pgwatchdog", "pgwatchdog", ""},
		{"started by its unit", "", "pgwatchdog-15-main", "pgwatchdog-15-main", ""},
		{"beside files of others", "", "conmgr-main pgwatchdogs pgwatchdog-15-main", "pgwatchdog-15-main", ""},
		{"named", "/state", "pgwatchdog-15-main pgwatchdog-16-main", "/state", ""},
		{"of two clusters", "", "pgwatchdog-15-main pgwatchdog-16-main", "", "pgwatchdog-15-main or --state-dir="},
		{"by hand and by its unit", "", "pgwatchdog pgwatchdog-16-main", "", "pgwatchdog or --state-dir="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			for _, name := range strings.Fields(tt.have) {
				if err := os.Mkdir(filepath.Join(parent, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			want := tt.want
			if want != "" && !filepath.IsAbs(want) {
				want = filepath.Join(parent, want)
			}
			e := env{states: func() []string { return statesIn(parent) }}
			got, err := e.stateDir(tt.named)
			if got != want || (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("stateDir(%q) = %q, %v; want %q, error with %q", tt.named, got, err, want, tt.wantErr)
			}
		})
	}
}

// Every command that asks an agent says which ones there are, instead of choosing one.
func TestSeveralAgentsAreToldApart(t *testing.T) {
	const want = "--state-dir=/a/pgwatchdog-15-main or --state-dir=/a/pgwatchdog-16-main"
	several := func() []string { return []string{"/a/pgwatchdog-15-main", "/a/pgwatchdog-16-main"} }
	for _, args := range []string{"sessions", "events", "pause --status"} {
		s := newSession(0, "")
		s.states = several
		if exit := s.run(t.Context(), strings.Fields(args)...); exit != 1 || !strings.Contains(s.errs.String(), want) {
			t.Errorf("%s: exit %d, %s", args, exit, s.errs)
		}
	}
	e, d := newSession(0, "").env, &doctor{}
	e.states = several
	if d.checkRunning(t.Context(), &e); len(d.findings) != 1+len(checksOfAgent) || !strings.Contains(d.findings[0].Detail, want) {
		t.Errorf("doctor: %+v", d.findings)
	}
}
