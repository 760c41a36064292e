// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Ports of the world: pass-through per target, heartbeats, the console with proxy
// mode.
const (
	portPrimary   = 27551
	portStandby   = 27552
	portAny       = 27553
	portHeartbeat = 27545
	portConsole   = 27546
)

// generous is how long an expectation may take on a machine in trouble. Passing
// rows do not wait for it.
const generous = 2 * time.Minute

// world is a running system: a client host with conmgr, a primary on db1 and its
// standby on db2, an agent beside each.
type world struct {
	*testing.T
	setup
	lab              *agenttest.Lab
	client, db1, db2 *agenttest.Host
	primary, standby *agenttest.Postgres
	agent1, agent2   *agenttest.Process
	cm               *agenttest.Conmgr
	captures         map[*agenttest.Host]*agenttest.Capture
	measured         map[string]time.Duration
	figures          map[string]string
	counted          map[string]uint64
}

func newWorld(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{
		T: t, setup: s, captures: map[*agenttest.Host]*agenttest.Capture{},
		measured: map[string]time.Duration{}, figures: map[string]string{}, counted: map[string]uint64{},
	}
	w.lab = agenttest.MustLabWith(t, agenttest.Options{
		Hosts: append([]string{"client", "db1", "db2"}, s.hosts...), Tap: s.tapHosts,
	})
	w.client, w.db1, w.db2 = w.lab.Host("client"), w.lab.Host("db1"), w.lab.Host("db2")
	for _, h := range w.lab.Hosts() {
		w.captures[h] = agenttest.MustCapture(w, h, portHeartbeat)
	}
	w.startInstances()
	if !s.noAgents {
		w.agent1 = w.startAgent(w.primary)
		if w.standby != nil {
			w.agent2 = w.startAgent(w.standby)
		}
	}
	if !s.noConmgr {
		w.cm = w.startConmgr(w.client, nil)
		if !s.noAgents {
			w.awaitMonitored(w.cm)
		}
	}
	return w
}

func (w *world) startInstances() {
	w.Helper()
	w.primary = agenttest.MustPostgres(w, w.db1, agenttest.PostgresOptions{Conf: w.setup.postgres})
	switch {
	case w.noStandby:
	case w.fresh:
		w.standby = agenttest.MustPostgres(w, w.db2, agenttest.PostgresOptions{Conf: w.setup.postgres, Fresh: true})
	default:
		w.standby = agenttest.MustPostgres(w, w.db2, agenttest.PostgresOptions{Conf: w.setup.postgres, StreamFrom: w.primary})
		w.must(w.standby.WaitStreaming(w.Context()))
	}
}

// startAgent starts pgwatchdog beside an instance, again after its end too.
func (w *world) startAgent(p *agenttest.Postgres) *agenttest.Process {
	w.Helper()
	o := w.agentOptions
	if w.udp || w.keyed {
		o.Args = append(slices.Clone(o.Args), "--key-file", w.keyFile(p.Host, o.User))
	}
	o.Conf = w.agents
	process, err := p.StartWatchdog(w.Context(), o)
	w.must(err)
	return process
}

// keyFile returns a file with the world's key on a host that only the given
// system user can read.
func (w *world) keyFile(h *agenttest.Host, owner string) string {
	w.Helper()
	path, err := h.KeyFile(owner)
	w.must(err)
	return path
}

// addr is a host's address in the variant's family.
func (w *world) addr(h *agenttest.Host) netip.Addr {
	if w.v6 {
		return h.Addr6
	}
	return h.Addr4
}

// startConmgr starts a conmgr on a host for the world's instances.
func (w *world) startConmgr(h *agenttest.Host, change map[string]string) *agenttest.Conmgr {
	w.Helper()
	return w.startConmgrAs(h, "", change)
}

// startConmgrAs starts a conmgr with a name that tells several on one host apart.
func (w *world) startConmgrAs(h *agenttest.Host, name string, change map[string]string) *agenttest.Conmgr {
	w.Helper()
	cm, err := h.NewConmgr(agenttest.ConmgrOptions{Name: name, Params: w.conmgrParams(h, change)})
	w.must(err)
	w.must(cm.Start(w.Context()))
	return cm
}

// conmgrParams is a conmgr.conf for the world's instances.
func (w *world) conmgrParams(h *agenttest.Host, change map[string]string) map[string]string {
	params := map[string]string{
		"heartbeat_interval": millis(w.interval), "heartbeat_timeout": millis(w.timeout),
		"heartbeat_connect_timeout": "2s",
	}
	for i, p := range []*agenttest.Postgres{w.primary, w.standby} {
		if p != nil {
			params[fmt.Sprintf("backend_hostaddr%d", i)] = fmt.Sprintf("'%s'", w.addr(p.Host))
			params[fmt.Sprintf("backend_port%d", i)] = fmt.Sprint(p.Port)
		}
	}
	if w.udp {
		params["heartbeat_transport"] = "udp"
	}
	if w.udp || w.keyed {
		params["heartbeat_key_file"] = "'" + w.keyFile(h, "nobody") + "'"
	}
	maps.Copy(params, w.setup.conmgr)
	maps.Copy(params, change)
	return params
}

// millis writes a duration as the configuration files take it.
func millis(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// awaitMonitored waits until every instance of a conmgr is monitored.
func (w *world) awaitMonitored(cm *agenttest.Conmgr) {
	w.Helper()
	want := 1
	if w.standby != nil {
		want = 2
	}
	agenttest.Eventually(w, generous, "all instances monitored", func() bool {
		n := 0
		for _, in := range w.instances(cm) {
			if in["monitoring"] == "monitored" && in["status"] == "up" {
				n++
			}
		}
		return n == want
	})
}

// must ends the test when the lab itself is in trouble.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// failf leaves the row: an expectation was not met.
func (w *world) failf(format string, args ...any) {
	panic(failed{fmt.Sprintf(format, args...)})
}

// expect polls for a fact that the row promises.
func (w *world) expect(what string, is func() bool) {
	w.Helper()
	start := time.Now()
	for !is() {
		<-time.After(agenttest.Pause(time.Since(start)))
		if time.Since(start) > w.patience() {
			w.failf("%s: not within %v", what, w.patience())
		}
	}
}

// patience is how long an expectation is waited for.
func (w *world) patience() time.Duration {
	if w.impatient > 0 {
		return w.impatient
	}
	return generous
}

// expectNever fails the row as soon as the fact is there, within the time.
func (w *world) expectNever(what string, during time.Duration, is func() bool) {
	w.Helper()
	for start := time.Now(); time.Since(start) < during; <-time.After(agenttest.Pause(time.Since(start))) {
		if is() {
			w.failf("%s", what)
		}
	}
}

// measure notes a figure for the summary.
func (w *world) measure(what string, d time.Duration) { w.measured[what] = d }

// figure notes one that is no time.
func (w *world) figure(what, format string, args ...any) {
	w.figures[what] = fmt.Sprintf(format, args...)
}

// count adds to a count for the summary, such as what an injector has done.
func (w *world) count(what string, n uint64) { w.counted[what] += n }

// expectVerdict checks when something happened that the silence since last
// caused: never before the timeout. How much later is measured, and bounded only
// by patience.
func (w *world) expectVerdict(what string, last, at mono.Instant, timeout time.Duration) {
	w.Helper()
	silence := at.Sub(last)
	w.measure(what, silence)
	if silence < timeout {
		w.failf("%s after %v of silence: expected not before %v", what, silence, timeout)
	}
	if silence > timeout+w.patience() {
		w.failf("%s after %v of silence: expected soon after %v", what, silence, timeout)
	}
}

// lastFrame is when the kernel of a host received the last heartbeat frame from
// another one.
func (w *world) lastFrame(at, from *agenttest.Host) mono.Instant {
	w.Helper()
	return agenttest.MustLastReceived(w, w.captures[at], w.addr(from))
}

// now is the boot-time clock.
func now() mono.Instant { return clock.Now() }

// switchOffAgents stops the agents' processes where the variant is without them.
// Their sockets stay, so conmgr sees nothing but silence.
func (w *world) switchOffAgents() {
	w.Helper()
	if !w.agentsAway {
		return
	}
	for _, a := range []*agenttest.Process{w.agent1, w.agent2} {
		_, err := a.Pause()
		w.must(err)
	}
}
