// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// What the command line says becomes one question.
func TestPauseQuestions(t *testing.T) {
	t.Parallel()
	const minute = 60_000
	for _, tt := range []struct {
		args string
		want control.Question
	}{
		{"pause", control.Question{Do: "pause", ForMS: 30 * minute}},
		{"pause 90s", control.Question{Do: "pause", ForMS: 90_000}},
		{"pause 45m", control.Question{Do: "pause", ForMS: 45 * minute}},
		{"pause 45min", control.Question{Do: "pause", ForMS: 45 * minute}},
		{"pause --reason=switch 2h", control.Question{Do: "pause", ForMS: 120 * minute, Reason: "switch"}},
		{"pause 1d", control.Question{Do: "pause", ForMS: 24 * 60 * minute}},
		{"pause --resume", control.Question{Do: "resume"}},
		{"pause --status", control.Question{Do: "status"}},
	} {
		for _, sudo := range []string{"", "alice", "a\nb"} {
			s := newSession(0, "")
			s.sudoUser = sudo
			var asked control.Question
			s.ask = func(_ context.Context, dir string, q control.Question) (*control.Reply, error) {
				if asked = q; dir != defaultStateDir {
					t.Errorf("asked in %s", dir)
				}
				return &control.Reply{Status: healthyAgent()}, nil
			}
			if exit := s.run(t.Context(), strings.Fields(tt.args)...); exit != 0 {
				t.Fatalf("%s: exit %d, %s", tt.args, exit, s.errs)
			}
			want := tt.want
			if sudo == "alice" && want.Do != "status" {
				want.By = sudo
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.args, diff)
			}
		}
	}
}

func TestPauseAnswers(t *testing.T) {
	t.Parallel()
	paused, dry := healthyAgent(), healthyAgent()
	paused.Kills, paused.Pause, paused.Warning = "paused", testPause(), "a restart would forget it"
	dry.Kills = "dry run"
	for _, tt := range []struct {
		name, args   string
		agent        control.Status
		want, stderr string
	}{
		{"enabled", "", healthyAgent(), "kills are enabled\n", ""},
		{"paused", "", paused, "kills are paused for 20m00s, until 2026-11-25 12:20:00 CET, by root for alice: new switch?[31m\n", "agentctl: note: a restart would forget it\n"},
		{"dry run", "--status", dry, "kills are enabled; watchdog.dry_run is on, so nobody is killed anyway\n", ""},
		{"JSON, enabled", "--json", healthyAgent(), `{"kills":"enabled"}` + "\n", ""},
		{"JSON, paused", "--json", paused, `{"kills":"paused","since":"2026-11-25T11:50:00+01:00","until":"2026-11-25T12:20:00+01:00","left_ms":1200000,"by":"root for alice","reason":"new switch\u001b[31m"}` + "\n", "agentctl: note: a restart would forget it\n"},
	} {
		s := newSession(0, "")
		s.ask = answers(tt.agent)
		exit := s.run(t.Context(), strings.Fields("pause "+tt.args)...)
		if exit != 0 || s.out.String() != tt.want || s.errs.String() != tt.stderr {
			t.Errorf("%s: exit %d, %q, %q, want %q, %q", tt.name, exit, s.out, s.errs, tt.want, tt.stderr)
		}
	}
}
