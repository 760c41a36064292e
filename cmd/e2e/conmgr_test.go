// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// policyWait is how long the policy "wait" waits at these timeouts (see watchdog),
// and a bit.
const policyWait = 3500 * time.Millisecond

// bind opens a console session of the client's conmgr bound to the instance with
// an attribute, as a driver in direct mode does, and waits on it.
func (w *world) bind(target string) *app {
	w.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=app dbname=conmgr connect_timeout=5", portConsole))
	w.must(err)
	cfg.DialFunc = w.client.Dial
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(w.Context(), cfg)
	w.must(err)
	a := w.adopt(conn)
	a.exec("TARGET " + target)
	a.listen()
	return a
}

// ctl runs cm_ctl and returns its output and exit code.
func (w *world) ctl(cm *agenttest.Conmgr, args ...string) (out string, exit int) {
	w.Helper()
	out, err := cm.Ctl(w.Context(), args...)
	return out, exitCode(w, err)
}

// mustCtl runs a cm_ctl that the row promises to work.
func (w *world) mustCtl(cm *agenttest.Conmgr, args ...string) string {
	w.Helper()
	out, exit := w.ctl(cm, args...)
	if exit != 0 {
		w.failf("cm_ctl %s: exit code %d: %s", strings.Join(args, " "), exit, out)
	}
	return out
}

// conmgr is killed: its applications get an error at once, and the server ends
// the sessions that outlive it after the policy's wait.
func TestConmgrDeath(t *testing.T) {
	prove(t, row{
		name: "conmgr-death", tcpOnly: true, with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { s.agents["watchdog.on_disconnect"] = "ignore" },
		run: func(w *world) {
			apps, console := w.crowd(w.through(portPrimary)), w.bind("primary")
			direct, other := w.crowd(w.directly(w.client, w.primary)), w.crowd(w.directly(w.db2, w.primary))
			killed := agenttest.MustFault(w, w.cm.Process.Kill)
			last := apps.expectErrors("conmgr killed")
			w.measure("application's error", last.at.Sub(killed.Before))
			if end := console.ended("a console session"); end.err == nil {
				w.failf("a console session ended without an error")
			}
			direct.expectUntouched("while the policy waits", max(0, w.timeout-now().Sub(killed.After)))
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("backends gone", now().Sub(killed.After))
			other.expectUntouched("another host", 0)
		},
	})
}

// conmgr is killed and started again in time: the server ends nobody.
func TestConmgrComesBack(t *testing.T) {
	prove(t, row{
		name: "conmgr-back", with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { s.agents["watchdog.on_disconnect"], s.away = "terminate", 3*time.Second },
		run: func(w *world) {
			direct := w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.cm.Process.Kill)
			if w.away > 0 { // enough for an agent that does not wait
				direct.expectUntouched("conmgr is away", w.away)
			}
			w.must(w.cm.Start(w.Context()))
			w.awaitMonitored(w.cm)
			direct.expectUntouched("conmgr is back", policyWait+w.timeout)
		},
	})
}

// cm_ctl stop, fast: applications get an error, and the server ends what is left
// of the host.
func TestConmgrStopFast(t *testing.T) { proveStop(t, "fast") }

// cm_ctl stop, immediate: the same without a word to the applications.
func TestConmgrStopImmediate(t *testing.T) { proveStop(t, "immediate") }

func proveStop(t *testing.T, mode string) {
	prove(t, row{
		name: "conmgr-stop-" + mode, with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { s.agents["watchdog.on_shutdown"] = "ignore" },
		run: func(w *world) {
			apps, console := w.crowd(w.through(portPrimary)), w.bind("primary")
			direct, other := w.crowd(w.directly(w.client, w.primary)), w.crowd(w.directly(w.db2, w.primary))
			asked := now()
			w.mustCtl(w.cm, "stop", "-m", mode)
			w.measure("cm_ctl stop", now().Sub(asked))
			apps.expectErrors("conmgr stopped")
			end := console.ended("a console session")
			if told := end.code() == "57P01" && strings.Contains(end.payload, `"reason":"stop"`); told != (mode == "fast") {
				w.failf("stop -m %s: a console session was told %q and ended with %v", mode, end.payload, end.err)
			}
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("backends gone", now().Sub(asked))
			direct.expectErrors("ended by the server")
			other.expectUntouched("another host", 0)
		},
	})
}

// cm_ctl stop, smart: waits for the applications; then nobody is left, and
// nobody is ended.
func TestConmgrStopSmart(t *testing.T) {
	prove(t, row{
		name: "conmgr-stop-smart", with: func(s *setup) { calm(s); alone(s) },
		// Without the smart mode this is what comes.
		off: func(s *setup) { s.stopMode = "fast" },
		run: func(w *world) {
			apps := w.crowd(w.through(portPrimary))
			direct := w.crowd(w.directly(w.client, w.primary))
			mode := cmp.Or(w.stopMode, "smart")
			if out, exit := w.ctl(w.cm, "stop", "-m", mode, "-t", "1"); exit != 1 || !strings.Contains(out, "waits for its applications") {
				w.failf("stop -m smart -t 1 with applications: exit code %d: %s", exit, out)
			}
			apps.expectUntouched("a smart shutdown", 0)
			if conn, err := w.connect(w.client, "127.0.0.1", portPrimary); err == nil {
				w.adopt(conn)
				w.failf("a new application was let in during a smart shutdown")
			}
			for _, a := range apps.all() {
				a.leave()
			}
			w.expect("conmgr gone", func() bool { return !w.cm.Process.Running() })
			direct.expectUntouched("after a smart shutdown", policyWait+w.timeout)
		},
	})
}

// cm_ctl restart: its own applications end, and the server waits: nobody of the
// other connections of that host is ended.
func TestConmgrRestart(t *testing.T) {
	prove(t, row{
		name: "conmgr-restart", with: func(s *setup) { calm(s); alone(s); s.noConmgr = true },
		off: func(s *setup) { s.stopMode = "fast" },
		run: func(w *world) {
			w.cm = w.newConmgr(w.client, nil)
			w.mustCtl(w.cm, "start")
			console := w.bind("primary")
			direct := w.crowd(w.directly(w.client, w.primary))
			asked := now()
			if w.stopMode == "" {
				w.mustCtl(w.cm, "restart")
			} else {
				w.mustCtl(w.cm, "stop", "-m", w.stopMode)
				w.mustCtl(w.cm, "start")
			}
			w.measure("cm_ctl restart", now().Sub(asked))
			end := console.ended("a console session")
			if end.code() != "57P01" || !strings.Contains(end.payload, `"reason":"restart"`) {
				w.failf("a console session was told %q and ended with %v: expected restart and 57P01", end.payload, end.err)
			}
			w.awaitMonitored(w.cm)
			direct.expectUntouched("after the restart", policyWait+w.timeout)
		},
	})
}
