// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// The wall clock is moved by hours, forwards and back: nobody notices. A machine
// has one clock for all its hosts, and this one's must stay as it is: the row runs
// in a virtual machine, where this test is run again. It is not parallel: emulation
// takes the processors that the timing of other rows needs.
func TestClockStep(t *testing.T) {
	if !vm.Inside() {
		runInGuest(t, "TestClockStep", "clock-step")
		return
	}
	prove(t, row{
		name: "clock-step", udpOnly: true, v4Only: true, fastOnly: true,
		with: func(s *setup) {
			alone(s)
			silenceIsFault(s)
			// An emulated machine is slow.
			s.interval, s.timeout = 500*time.Millisecond, 3*time.Second
			s.agents["watchdog.accept_timeout"] = "20s"
		},
		off: func(s *setup) { s.worsePath = true },
		run: func(w *world) {
			x, tcp := w.witnesses(), w.crowdOverTCP()
			if w.worsePath { // a real silence in place of one that a clock tells
				agenttest.MustFault(w, w.client.Cut)
			}
			w.step(x, tcp, 5*time.Hour)
			w.step(x, tcp, -11*time.Hour)
			w.must(vm.StepClock(6 * time.Hour)) // right again, for the next variant
			x.expectAlive("the clock is right again")
		},
	})
}

// crowdOverTCP are applications of a second conmgr, whose heartbeats are over TCP.
func (w *world) crowdOverTCP() *crowd {
	w.Helper()
	second := w.startConmgrAs(w.client, "second", map[string]string{
		"port": "27556", "proxy_listen": "'27561:primary'", "heartbeat_transport": "tcp",
	})
	w.awaitMonitored(second)
	return w.crowd(w.through(27561))
}

// step moves the clock and expects that nobody notices within a timeout and a bit.
func (w *world) step(x *witnesses, tcp *crowd, by time.Duration) {
	w.Helper()
	what := "the clock moved by " + by.String()
	w.must(vm.StepClock(by))
	x.expectUnnoticed(what, w.timeout+time.Second)
	x.expectAlive(what)
	tcp.expectUntouched(what, 0)
	w.count("steps of the clock", 1)
}

// runInGuest runs a test of this package in a virtual machine and takes over what
// it said of its row.
func runInGuest(t *testing.T, test, row string) {
	agenttest.NeedPostgres(t)
	m := guestWithLab(t)
	m.Command = []string{"/vm/e2e.test", "-test.run", "^" + test + "$", "-test.v", "-test.parallel", "1", "-test.timeout", "15m"}
	var said strings.Builder
	exit, err := m.Run(t.Context(), func(line string) {
		said.WriteString(line + "\n")
		if strings.HasPrefix(line, row+" ") {
			results.takeOver(line + " (in a virtual machine)")
		}
	})
	if err != nil || exit != 0 {
		t.Errorf("exit code %d, %v:\n%s", exit, err, said.String())
	}
}

// guestWithLab is a machine in which the tests of this package run.
func guestWithLab(t *testing.T) *vm.Machine {
	t.Helper()
	m := agenttest.LabGuest(agenttest.NeedVM(t))
	m.Memory, m.Processors = 1024, 2
	m.Modules = append(m.Modules, "tcp_diag", "inet_diag")
	m.Programs = append(m.Programs, "cp", "install", "setpriv", "cat", "sh")
	m.Trees = append(m.Trees, "/etc/hosts", "/usr/share/zoneinfo/Etc")
	m.Env = append(m.Env, "XDG_CACHE_HOME=/vm/cache", agenttest.BinEnv+"=/vm/bin")
	addPostgres(t, m)
	addOurs(t, m)
	return m
}

// addPostgres brings the server and a data directory.
func addPostgres(t *testing.T, m *vm.Machine) {
	t.Helper()
	bin, data, err := agenttest.PostgresFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "initdb", "pg_basebackup", "pg_rewind"} {
		m.Programs = append(m.Programs, filepath.Join(bin, name))
	}
	for _, what := range []string{"--sharedir", "--pkglibdir"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_config"), what).Output()
		if err != nil {
			t.Fatal(err)
		}
		dir := strings.TrimSpace(string(out))
		if what == "--pkglibdir" {
			dir = filepath.Join(dir, "plpgsql.so") // the only one that the rows use
		}
		m.Trees = append(m.Trees, dir)
	}
	m.Files = map[string]string{"/vm/cache/pgconmgr/" + filepath.Base(data): data}
}

// addOurs brings the daemons and this package's tests, all static.
func addOurs(t *testing.T, m *vm.Machine) {
	t.Helper()
	bin, err := agenttest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"conmgr", "pgwatchdog", "cm_ctl"} {
		m.Files["/vm/bin/"+name] = filepath.Join(bin, name)
	}
	m.Files["/vm/e2e.test"] = agenttest.MustTestProgram(t)
}
