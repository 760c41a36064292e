// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// The primary is gone and the standby is promoted: the next connect to primary
// lands on it.
func TestPromote(t *testing.T) {
	prove(t, row{name: "promote", with: noHeartbeat, off: without, run: promote})
}

// The same with an agent that may not read the data directory.
func TestPromoteUnprivilegedAgent(t *testing.T) {
	prove(t, row{
		name: "promote, agent nobody",
		with: func(s *setup) {
			noHeartbeat(s)
			s.agentOptions.User = "nobody"
		},
		off: without, run: promote,
	})
}

func promote(w *world) {
	_, err := w.primary.Kill9(w.Context())
	w.must(err)
	w.expect("connects to primary are refused", func() bool {
		_, err := w.connect(w.client, "127.0.0.1", portPrimary)
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "57P03"
	})
	w.switchOffAgents()
	promoted, watched := make(chan mono.Instant, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(w.Context())
	go func() {
		defer close(watched)
		w.watchPromotion(ctx, promoted)
	}()
	defer func() {
		cancel()
		<-watched
	}()
	w.must(w.standby.Exec(w.Context(), "SELECT pg_catalog.pg_promote(false)"))
	a := w.open(portPrimary)
	landed := now()
	if got := a.value("SELECT host(inet_server_addr())"); got != w.addr(w.db2).String() {
		w.failf("connected to %s: expected the promoted %s", got, w.addr(w.db2))
	}
	a.exec("CREATE TABLE written_after_promotion (i int)")
	w.measure("promotion to connect", landed.Sub(<-promoted))
}

// watchPromotion sends when another session first saw the standby promoted.
func (w *world) watchPromotion(ctx context.Context, at chan<- mono.Instant) {
	conn, err := w.standby.Connect(ctx)
	if err != nil {
		return
	}
	defer closeSoon(conn)
	for recovery := true; recovery; {
		if conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovery) != nil {
			return
		}
	}
	at <- now()
}

// A standby is promoted while sessions that asked for a standby are on it: they
// end, those that are content with either role go on.
func TestRoleChange(t *testing.T) {
	prove(t, row{
		name: "role change",
		with: func(s *setup) { s.conmgr["load_balance"] = "first" },
		off:  func(s *setup) { s.conmgr["close_on_role_change"] = "off" },
		run: func(w *world) {
			_, err := w.primary.Kill9(w.Context())
			w.must(err)
			standby := w.open(portStandby)
			standby.idle()
			indifferent := w.open(portAny)
			watcher := w.target("standby")
			promoted, err := w.standby.Promote(w.Context())
			w.must(err)
			w.measure("session of a standby", standby.ended("session of a standby").at.Sub(promoted.Before))
			if reason := watcher.ended("console").fault.Reason; reason != "role change" {
				w.failf("reason %q: expected role change", reason)
			}
			indifferent.exec("CREATE TABLE written (i int)")
		},
	})
}

// The old primary comes back as a standby: sessions that asked for primary end
// there, and each target finds its instance.
func TestDemote(t *testing.T) {
	prove(t, row{
		name: "demote", with: noHeartbeat, off: without,
		run: func(w *world) {
			asked := w.open(portPrimary)
			asked.idle()
			watcher := w.target("primary")
			w.switchOffAgents()
			_, err := w.standby.Promote(w.Context())
			w.must(err)
			_, err = w.primary.Rejoin(w.Context(), w.standby)
			w.must(err)
			if end := asked.ended("session of the old primary"); end.err == nil {
				w.failf("the session of the old primary ended without an error")
			}
			watcher.ended("console")
			back := now()
			w.expect("standby is the old primary", func() bool { return w.landsOn(portStandby) == w.addr(w.db1).String() })
			w.measure("demoted to connect", now().Sub(back))
			if got := w.landsOn(portPrimary); got != w.addr(w.db2).String() {
				w.failf("primary is %q: expected the promoted %s", got, w.addr(w.db2))
			}
		},
	})
}

// Two primaries on different timelines: the higher one wins, and the sessions of
// the other one end, busy or not.
func TestSplit(t *testing.T) {
	prove(t, row{
		name: "split",
		off:  func(s *setup) { s.conmgr["close_on_stale_primary"] = "off" },
		run: func(w *world) {
			busy, idle := w.open(portPrimary), w.open(portPrimary)
			busy.begin(busyLoop)
			idle.idle()
			watcher := w.target("primary")
			promoted, err := w.standby.Promote(w.Context())
			w.must(err)
			w.measure("busy session of the loser", busy.ended("busy").at.Sub(promoted.Before))
			w.measure("idle session of the loser", idle.ended("idle").at.Sub(promoted.Before))
			if reason := watcher.ended("console").fault.Reason; reason != "stale primary" {
				w.failf("reason %q: expected stale primary", reason)
			}
			for range 10 {
				if got := w.landsOn(portPrimary); got != w.addr(w.db2).String() {
					w.failf("primary is %q: expected %s with the higher timeline", got, w.addr(w.db2))
				}
				if got := w.landsOn(portAny); got != w.addr(w.db2).String() {
					w.failf("any is %q: expected %s, the loser must not be used", got, w.addr(w.db2))
				}
			}
		},
	})
}

// makeTwin turns the standby into a primary on the primary's own timeline, as a
// copy does that was started without standby.signal.
func (w *world) makeTwin() {
	w.Helper()
	w.must(w.standby.Stop(w.Context(), agenttest.Fast))
	w.must(os.Remove(filepath.Join(w.standby.DataDir, "standby.signal")))
	w.must(w.standby.Start(w.Context()))
}

// Two primaries on one timeline: the one that was primary before wins.
func TestSplitIncumbent(t *testing.T) {
	prove(t, row{
		name: "split, incumbent", with: noHeartbeat, off: without,
		run: func(w *world) {
			a := w.open(portPrimary)
			w.switchOffAgents()
			w.makeTwin()
			w.expect("the twin is known to be stale", func() bool { return w.why(w.cm, w.db2) != "" })
			for range 10 {
				if got := w.landsOn(portPrimary); got != w.addr(w.db1).String() {
					w.failf("primary is %q: expected %s, who was primary before", got, w.addr(w.db1))
				}
			}
			a.exec("CREATE TABLE written (i int)")
		},
	})
}

// Two primaries on one timeline of which neither was seen before the other: none
// is used, the error names both.
func TestSplitUndecided(t *testing.T) {
	prove(t, row{
		name: "split, undecided",
		with: func(s *setup) { s.noConmgr = true },
		off:  func(s *setup) { s.agents["watchdog.clients"] = "198.51.100.1/32" }, // both are unheard of
		run: func(w *world) {
			w.makeTwin()
			w.must(w.agent2.Stop(w.Context())) // so that it does not answer first with what it was
			w.agent2 = w.startAgent(w.standby)
			for _, agent := range []*agenttest.Process{w.agent1, w.agent2} {
				w.expect("both agents serve", func() bool { return w.logged(agent, "to=\"up primary\"") })
			}
			w.cm = w.startConmgr(w.client, nil)
			var said *pgconn.PgError
			names := func() bool {
				conn, err := w.connect(w.client, "127.0.0.1", portPrimary)
				if err == nil {
					closeSoon(conn)
				}
				e, ok := errors.AsType[*pgconn.PgError](err)
				if ok {
					said = e
				}
				return ok && e.Code == "57P03" && strings.Contains(e.Error()+e.Message+e.Detail, "are primaries on timeline 1") &&
					strings.Contains(e.Message+e.Detail, w.addr(w.db1).String()) &&
					strings.Contains(e.Message+e.Detail, w.addr(w.db2).String())
			}
			w.expect("an error that names both primaries", names)
			w.Logf("the client is told: %s %s\n%s", said.Code, said.Message, said.Detail)
			w.expectNever("one of the primaries was used", 500*time.Millisecond, func() bool { return w.landsOn(portPrimary) != "" })
			_, err := w.console(w.client, func(*pgconn.Notification) {})
			w.must(err)
		},
	})
}

// why is conmgr's sentence about the instance on a host.
func (w *world) why(cm *agenttest.Conmgr, h *agenttest.Host) string {
	for _, in := range w.instances(cm) {
		if in["hostaddr"] == w.addr(h).String() {
			return in["why"]
		}
	}
	return fmt.Sprintf("no instance on %s", h.Name)
}
