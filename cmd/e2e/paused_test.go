// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// agentctl runs a command on db1 against the agent there, and returns what it printed.
func (w *world) agentctl(args ...string) (string, error) {
	w.Helper()
	state := filepath.Join(w.lab.Dir, w.db1.Name, w.primary.Name, "watchdog")
	args = append(args, "--state-dir", state)
	out, err := w.db1.Command(w.Context(), w.binary("agentctl"), args...).Output()
	return string(out), err
}

func (w *world) mustAgentctl(args ...string) string {
	w.Helper()
	out, err := w.agentctl(args...)
	w.must(err)
	return out
}

// relations are how the client host stands with the agent of db1, as agentctl shows
// it: one for each of its sessions. An agent that begins may not answer yet.
func (w *world) relations() (list []string) {
	w.Helper()
	out, err := w.agentctl("sessions", "--json", "--peer", w.addr(w.client).String())
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(out) {
		var s control.Session
		w.must(json.Unmarshal([]byte(line), &s))
		list = append(list, strings.TrimSpace(s.State+" "+s.Relation))
	}
	return list
}

func (w *world) expectRelation(what, want string) {
	w.Helper()
	w.expect(what+": the client is "+want, func() bool { return strings.Join(w.relations(), ", ") == want })
}

// Kills are paused: a client host that dies keeps its database sessions, also when
// the agent is restarted meanwhile; one that comes back keeps them for good, and one
// that is still away when the pause is over loses them then.
func TestKillsPaused(t *testing.T) {
	prove(t, row{
		name: "kills-paused", v4Only: true, fastOnly: true, with: func(s *setup) { alone(s); calm(s) },
		off: func(s *setup) { s.unpaused = true },
		run: func(w *world) {
			w.expectRelation("at first", "up armed")
			w.pauseKills()
			survivors := w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.client.Cut)
			w.expectRelation("cut off", "down suspended")
			agenttest.MustFault(w, w.client.Heal)
			w.expectRelation("back", "up armed")
			w.mustAgentctl("pause", "--resume")
			survivors.expectUntouched("behind the pause", policyWait)

			w.pauseKills()
			agenttest.MustFault(w, w.client.Cut)
			w.expectRelation("cut off again", "down suspended")
			agenttest.MustFault(w, w.agent1.Kill)
			w.agent1 = w.startAgent(w.primary)
			w.expectRelation("after the agent's restart", "down suspended")
			if got := w.living(w.primary, survivors.pids()); got != survivors.size() {
				w.failf("%d backends of %d live in the pause", got, survivors.size())
			}
			if text := w.mustAgentctl("pause", "--status"); !strings.HasPrefix(text, "kills are paused for ") || !strings.Contains(text, ": row") {
				w.failf("status %q", text)
			}
			resumed := now()
			w.mustAgentctl("pause", "--resume")
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("resumed to backends gone", now().Sub(resumed))
			events := w.watchdogEvents(w.primary)
			for _, want := range []string{`"kind":"kills paused"`, `"outcome":"paused"`, `"kind":"client came back"`, `"kind":"kills resumed"`, `"by":"root`, `"outcome":"done"`} {
				w.expect("on record: "+want, func() bool {
					events = w.watchdogEvents(w.primary)
					return strings.Contains(events, want)
				})
			}
		},
	})
}

// pauseKills has the agent of db1 pause, and waits until the conmgr shows it.
func (w *world) pauseKills() {
	w.Helper()
	if w.unpaused {
		return
	}
	w.mustAgentctl("pause", "10m", "--reason", "row")
	w.expect("conmgr shows the pause", func() bool { return w.instances(w.cm)[0]["kills"] == "paused" })
}
