// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// What is taken from a healthy agent changes its line and no other one.
func TestDoctorAgent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		take func(*control.Status)
		want expect
	}{
		{"nothing", func(*control.Status) {}, expect{checkAgent, works, "pgwatchdog 1.2.3, pid 4711, since 2026-11-24 10:00:00: 3 sessions armed", ""}},
		{"kills", func(s *control.Status) { s.Kills, s.Pause, s.Clients.Suspended = "paused", testPause(), 2 },
			expect{checkKills, warning, "kills are paused for 20m00s, until 2026-11-25 12:20:00 CET, by root for alice: new switch?[31m; 2 dead clients kept alive", "agentctl pause --resume"}},
		{"dry run", func(s *control.Status) { s.Kills = "dry run" }, expect{checkKills, warning, "nobody is killed", "watchdog.dry_run = off"}},
		{"instance unknown", func(s *control.Status) { s.Instance.Status = "unknown" }, expect{checkAgentInstance, missing, "conmgrs call it unmonitored", "see the check database"}},
		{"instance down", func(s *control.Status) { s.Instance.Status = "down" }, expect{checkAgentInstance, warning, "the instance is down primary", "start the instance"}},
		{"terminator", func(s *control.Status) { s.Database.Terminator = false }, expect{checkAgentDatabase, missing, "stay until it is", "max_connections"}},
		{"monitor", func(s *control.Status) { s.Database.Monitor = false }, expect{checkAgentDatabase, warning, "not answered", "see the check database"}},
		{"rights", func(s *control.Status) { s.Database.Missing = []string{"a", "b"} }, expect{checkAgentDatabase, missing, "would not end", "a; b"}},
		{"sockets", func(s *control.Status) { s.Sockets.Error = "EPERM" }, expect{checkAgentSockets, missing, "EPERM", "sock destroy"}},
		{"proof", func(s *control.Status) { s.Sockets.Proven = false }, expect{checkAgentSockets, skipped, "not tried", ""}},
		{"hints", func(s *control.Status) { s.Links.Enabled = false }, expect{checkAgentLinks, warning, "watchdog.link_hints is off", "watchdog.link_hints = on"}},
		{"links", func(s *control.Status) { s.Links.Source = "none" }, expect{checkAgentLinks, missing, "not watched", "rtnetlink"}},
		{"better source", func(s *control.Status) {
			*s = sickAgent()
			s.Links.Source = "kprobe"
			l := s.Links
			*s = healthyAgent()
			s.Links = l
		},
			expect{checkAgentLinks, works, "by kprobe; fentry: missing CAP_BPF", ""}},
		{"all better sources", func(s *control.Status) { s.Links = sickAgent().Links }, expect{checkAgentLinks, warning, "up to a second late", "give the process CAP_BPF"}},
		{"descriptors", func(s *control.Status) { s.Descriptors.Limit = 163 }, expect{checkAgentDescriptors, missing, "24 open, 163 may be, 164 are needed for 100", "LimitNOFILE=164"}},
		{"fuse", func(s *control.Status) { s.Fuse = sickAgent().Fuse }, expect{checkFuse, warning, "holds the verdicts of 4 sessions", "network of this host"}},
		{"fuse before", func(s *control.Status) { s.Fuse = sickAgent().Fuse; s.Fuse.Held = 0 }, expect{checkFuse, works, "has held verdicts once, the last time 2026-11-25T11:00:00Z", ""}},
		{"time", func(s *control.Status) { s.Stalls = 2 }, expect{checkStalls, warning, "2 times", "Nice="}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status := healthyAgent()
			tt.take(&status)
			s := newSession(0, "")
			s.kernel, s.ask = healthyKernel(), answers(status)
			exit := s.run(t.Context(), "doctor", "--json", "--config", mustConf(t, ""))
			if want := map[bool]int{true: 1}[tt.want.result == missing]; exit != want {
				t.Errorf("exit %d, want %d: %s", exit, want, s.errs)
			}
			all := mustFindings(t, s.out.String())
			tt.want.in(t, all)
			delete(all, tt.want.check)
			for _, check := range append([]string{checkAgent}, checksOfAgent...) {
				if f, ok := all[check]; ok && f.Result != works {
					t.Errorf("%s: %s %s", f.Check, f.Result, f.Detail)
				}
			}
		})
	}
}

// An agent that does not answer is told apart from one that was not started.
func TestDoctorNoAgent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want expect
	}{
		{fs.ErrNotExist, expect{checkAgent, skipped, "no pgwatchdog runs with the state directory /given", ""}},
		{fs.ErrPermission, expect{checkAgent, skipped, "needs root or the user of pgwatchdog", ""}},
		{syscall.ECONNREFUSED, expect{checkAgent, missing, "without a goodbye", "start it"}},
		{context.DeadlineExceeded, expect{checkAgent, missing, "does not answer within 5s", "restart it"}},
		{errors.New("garbage"), expect{checkAgent, missing, "garbage", "of one version"}},
	} {
		s := newSession(0, "")
		s.kernel = healthyKernel()
		s.ask = func(_ context.Context, dir string, q control.Question) (*control.Reply, error) {
			if dir != "/given" || q.Do != control.DoStatus {
				t.Errorf("asked %+v in %s", q, dir)
			}
			return nil, tt.err
		}
		exit := s.run(t.Context(), "doctor", "--json", "--config", mustConf(t, "state_dir = /given\n"))
		all := mustFindings(t, s.out.String())
		tt.want.in(t, all)
		if want := map[bool]int{true: 1}[tt.want.result == missing]; exit != want {
			t.Errorf("%v: exit %d, want %d", tt.err, exit, want)
		}
		for _, check := range checksOfAgent {
			expect{check, skipped, "needs the running agent", ""}.in(t, all)
		}
	}
}
