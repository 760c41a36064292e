// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// A cluster of its own stands behind a configured address: it is never routed
// to, whatever is asked for and whoever else is gone.
func TestWrongInstance(t *testing.T) {
	prove(t, row{
		name: "wrong-instance",
		with: func(s *setup) { s.fresh, s.noConmgr, s.noAgents = true, true, true },
		off:  func(s *setup) { s.fresh = false },
		run: func(w *world) {
			w.agent1 = w.startAgent(w.primary)
			w.cm = w.startConmgr(w.client, nil)
			a := w.open(portPrimary) // the one that teaches the system identifier
			w.agent2 = w.startAgent(w.standby)
			w.expect("the other cluster is foreign", func() bool { return w.monitoring(w.cm, w.db2) == "foreign" })
			w.neverRoutedTo(w.db2, "system identifier")
			a.exec("SELECT")
			_, err := w.primary.Kill9(w.Context())
			w.must(err)
			w.neverRoutedTo(w.db2, "system identifier")
			// What was learned outlives conmgr.
			w.must(w.cm.Process.Stop(w.Context()))
			w.must(w.cm.Start(w.Context()))
			w.expect("the other cluster is foreign again", func() bool { return w.monitoring(w.cm, w.db2) == "foreign" })
			w.neverRoutedTo(w.db2, "system identifier")
		},
	})
}

// The agent beside an instance watches another one, on another port than
// backend_port: what it says is not about the one that applications would reach.
func TestWrongInstancePort(t *testing.T) {
	prove(t, row{
		name: "wrong-instance port",
		with: func(s *setup) { s.noConmgr, s.conmgr["backend_port1"] = true, "5433" },
		off:  func(s *setup) { s.conmgr["backend_port1"] = "5432" },
		run: func(w *world) {
			agenttest.MustPostgres(w, w.db2, agenttest.PostgresOptions{Name: "neighbour", Port: 5433, StreamFrom: w.primary})
			w.cm = w.startConmgr(w.client, nil)
			a := w.open(portPrimary)
			w.expect("the neighbour is foreign", func() bool { return w.monitoring(w.cm, w.db2) == "foreign" })
			w.neverRoutedTo(w.db2, "backend_port1")
			a.exec("SELECT")
		},
	})
}

// neverRoutedTo fails the row when any target leads to a host, and when conmgr
// has not said why as one ERROR.
func (w *world) neverRoutedTo(h *agenttest.Host, why string) {
	w.Helper()
	for _, port := range []int{portPrimary, portStandby, portAny} {
		w.expectNever("an application was routed to the wrong instance", 100*time.Millisecond, func() bool {
			return w.landsOn(port) == w.addr(h).String()
		})
	}
	if got := w.why(w.cm, h); !strings.Contains(got, why) {
		w.failf("SHOW INSTANCES says %q: expected a word on the %s", got, why)
	}
	log, err := w.cm.Process.Log()
	w.must(err)
	if n := strings.Count(log, "ERROR:  wrong instance"); n == 0 || n > 2 {
		w.failf("%d errors on the wrong instance in the log: expected one for each start", n)
	}
}
