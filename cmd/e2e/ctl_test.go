// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// proveOnce runs what is no row of the failure table: nothing to switch off.
func proveOnce(t *testing.T, name string, with func(s *setup), run func(w *world)) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := fast()
	calm(&s)
	s.noConmgr = true
	with(&s)
	if why := runRow(t, row{name: name, run: run}, s, "100ms"); why != "" {
		t.Error(why)
	}
}

// dots are the progress of cm_ctl: one more for each second.
var dots = regexp.MustCompile(`\.{4,}`)

// expectCtl runs cm_ctl and checks its exit code and what it prints.
func (w *world) expectCtl(exit int, want string, args ...string) {
	w.Helper()
	out, got := w.ctl(w.cm, args...)
	out = dots.ReplaceAllString(out, "...")
	if got != exit || !strings.Contains(out, want) {
		w.failf("cm_ctl %s: exit code %d: expected %d and %q in\n%s", strings.Join(args, " "), got, exit, want, out)
	}
}

// From the first start to the last stop, with an instance whose agent is not
// there at first.
func TestCtlStartAndStop(t *testing.T) {
	proveOnce(t, "cm_ctl", func(s *setup) { s.noAgents = true }, func(w *world) {
		w.cm = w.newConmgr(w.client, nil)
		w.expectCtl(0, "conmgr.conf is valid: 2 instances, 0 warnings", "check")
		w.expectCtl(3, "no conmgr is running", "status")
		w.expectCtl(3, `{"conmgr_status":{"status":"not running"}}`, "status", "--json")
		w.expectCtl(1, "no conmgr is running", "stop")

		w.expectCtl(1, "waiting for conmgr to connect to the primary's watchdog... stopped waiting", "start", "-t", "1")
		w.expectCtl(0, "connection refused", "status", "-i", "instance")
		w.expectCtl(1, "another conmgr is running", "start")
		w.agent1 = w.startAgent(w.primary)
		w.expectCtl(0, "waiting for conmgr to shut down... done\nwaiting for conmgr to connect to the primary's watchdog... done\nconmgr started (PID: ", "restart")
		w.expectCtl(1, "instance 1 ("+w.addr(w.db2).String()+" port 5432): unknown, heartbeat ", "restart", "--complete", "-t", "1")
		w.agent2 = w.startAgent(w.standby)
		w.expectCtl(0, "watchdogs of all instances... done", "restart", "--complete")
		w.awaitMonitored(w.cm)

		w.expectCtl(2, "expected smart, fast or immediate", "stop", "-m", "slow")
		w.expectCtl(2, "unknown command", "begin")
		w.expectCtl(2, "contradict", "start", "-W", "--complete")
		w.expectCtl(0, "conmgr is shutting down", "stop", "-W")
		w.expect("conmgr gone", func() bool { _, exit := w.ctl(w.cm, "status"); return exit == 3 })
		w.expectCtl(0, "conmgr is starting", "start", "-W")
		w.expect("both monitored", func() bool {
			out, _ := w.ctl(w.cm, "status", "-i", "instance")
			return strings.Count(out, " monitored ") == 2
		})
		for _, mode := range []string{"smart", "fast", "immediate"} {
			w.expectCtl(0, "waiting for conmgr to shut down... done\nconmgr stopped\n", "stop", "-m", mode)
			w.expectCtl(0, "conmgr started (PID: ", "start")
		}
		w.killConmgr()
		w.expectCtl(3, "has ended", "status")
		w.expectCtl(1, "has ended", "stop")
		w.expectCtl(0, "conmgr started", "restart") // starts it, and says so
		w.expectCtl(0, "conmgr stopped", "stop")
	})
}

// killConmgr kills the process that the pid file names.
func (w *world) killConmgr() {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.cm.Dir, "conmgr.pid"))
	w.must(err)
	pid := 0
	_, err = fmt.Sscan(string(text), &pid)
	w.must(err)
	w.must(syscall.Kill(pid, syscall.SIGKILL))
}

// What cm_ctl status shows, as tables and as JSON.
func TestCtlStatus(t *testing.T) {
	proveOnce(t, "cm_ctl status", func(*setup) {}, func(w *world) {
		w.cm = w.newConmgr(w.client, nil)
		w.expectCtl(0, "conmgr started", "start", "--complete")
		proxied, console := w.open(portPrimary), w.bind("standby")
		tables := w.mustCtl(w.cm, "status")
		for _, want := range []string{
			"conmgr_status:\nstatus  pid ", "instance_information:\naddr ", "application_information:\naddr ",
			"port  database_attr", "primary", "standby", "passthrough", "console",
		} {
			if !strings.Contains(tables, want) {
				w.failf("cm_ctl status: expected %q in\n%s", want, tables)
			}
		}
		var s struct {
			Conmgr       map[string]any   `json:"conmgr_status"`
			Instances    []map[string]any `json:"instance_information"`
			Applications []map[string]any `json:"application_information"`
		}
		w.expect("figures of both instances", func() bool {
			w.must(json.Unmarshal([]byte(w.mustCtl(w.cm, "status", "--json")), &s))
			for _, in := range s.Instances {
				if rtt, ok := in["rtt_ms"].(float64); !ok || rtt <= 0 {
					return false
				}
			}
			return true
		})
		if s.Conmgr["status"] != "ready" || s.Conmgr["applications"] != 2.0 || len(s.Instances) != 2 || len(s.Applications) != 2 {
			w.failf("cm_ctl status --json: %v", s)
		}
		for i, attribute := range []string{"primary", "standby"} {
			in := s.Instances[i]
			if in["attribute"] != attribute || in["monitoring"] != "monitored" || in["status"] != "up" || in["port"] != 5432.0 {
				w.failf("cm_ctl status --json: instance %d: %v", i, in)
			}
		}
		if a := s.Applications; a[0]["instance"] != 0.0 || a[1]["instance"] != 1.0 || a[1]["kind"] != "console" {
			w.failf("cm_ctl status --json: applications %v", a)
		}
		proxied.leave()
		console.leave()
		w.expect("no application left", func() bool {
			return strings.Contains(w.mustCtl(w.cm, "status", "-i", "application", "--json"), `"application_information": []`)
		})
	})
}

// Two starts at once: one wins, the other says so.
func TestCtlTwoStarts(t *testing.T) {
	proveOnce(t, "cm_ctl start twice", alone, func(w *world) {
		w.cm = w.newConmgr(w.client, nil)
		const starts = 4
		type end struct {
			out  string
			exit int
		}
		ends := make(chan end)
		for range starts {
			go func() {
				out, err := w.cm.Ctl(w.Context(), "start", "-t", "20")
				ends <- end{out, exitCode(w, err)}
			}()
		}
		won := 0
		for range starts {
			switch e := <-ends; {
			case e.exit == 0:
				won++
			case e.exit != 1 || !strings.Contains(e.out, "another conmgr is running"):
				w.failf("a start that lost: exit code %d: %s", e.exit, e.out)
			}
		}
		if won != 1 {
			w.failf("%d of %d starts won: expected one", won, starts)
		}
		w.expectCtl(0, "monitored", "status", "-i", "instance")
		w.expectCtl(0, "conmgr stopped", "stop")
	})
}

// A mistake in conmgr.conf: check, start and restart tell it, and a restart does
// not stop the conmgr that runs.
func TestCtlBadConfiguration(t *testing.T) {
	proveOnce(t, "cm_ctl bad conf", alone, func(w *world) {
		w.cm = w.newConmgr(w.client, nil)
		w.expectCtl(0, "conmgr started", "start")
		app := w.open(portPrimary)
		params := w.conmgrParams(w.client, nil)
		params["heartbeat_tiemout"] = "1"
		params["port"] = "'x'"
		w.must(w.cm.Configure(nil, params))
		for _, verb := range []string{"check", "restart"} {
			w.expectCtl(1, "perhaps heartbeat_timeout is meant", verb)
			w.expectCtl(1, `port: expected a number from 1 to 65535, found "x"`, verb)
		}
		app.exec("SELECT 1")
		w.expectCtl(0, "conmgr stopped", "stop")
		w.expectCtl(1, "perhaps heartbeat_timeout is meant", "start")
		w.expectCtl(3, "no conmgr is running", "status")

		taken, err := w.client.Listen(w.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", portConsole))
		w.must(err)
		w.must(w.cm.Configure(nil, w.conmgrParams(w.client, nil)))
		began := time.Now()
		w.expectCtl(1, "the address is in use: is another conmgr running on this port?", "start")
		if took := time.Since(began); took > 20*time.Second {
			w.failf("a start that cannot work took %v to say so", took)
		}
		w.must(taken.Close())
		w.expectCtl(0, "conmgr started", "start")
	})
}
