// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

const (
	// calmTime is how long the healthy session is watched before the attack.
	calmTime = 3 * time.Second
	// attackTime is how long everything is thrown at both daemons at once.
	attackTime = 8 * time.Second
)

// besieged is a world with an attacker in it, at a timeout that a machine does not
// reach which is busy with the attack itself.
func besieged(s *setup) {
	alone(s)
	s.timeout, s.noConmgr, s.hosts = 8*time.Second, true, []string{"mallory"}
}

// An attacker who reads the path and sends from every address, but has no key:
// the healthy session beside him does not notice. With the key stolen, the same
// attack ends it.
func TestHostile(t *testing.T) {
	prove(t, row{
		name: "hostile", v4Only: true, fastOnly: true,
		with: func(s *setup) { besieged(s); s.keyed = true },
		off:  func(s *setup) { s.udp, s.stolen = true, true },
		run: func(w *world) {
			m := w.mallory()
			v := w.victims()
			attacks := []func(context.Context){m.garbage, m.helloFlood, m.cookieFlood, m.inConmgrsName, m.streams, m.localUser}
			if w.udp {
				attacks = append(attacks, m.inTheWatchdogsName)
			} else {
				attacks = append(attacks, m.blindResets)
			}
			v.underAttack(attacks, func() {
				m.connects(2000, nil)
				m.connects(1000, prefixed(v.known.helloBytes)) // replayed, and never armed
			})
			w.figure("forged packets", "%d", m.forger.sent.Load())
			w.figure("UDP answers", "%d", m.asked.Load())
			if n := m.longer.Load(); n > 0 {
				w.failf("%d answers to strangers were longer than their question", n)
			}
			if n := m.admitted.Load(); n > 0 {
				w.failf("%d answers to a local user without the key were no refusal", n)
			}
			if m.asked.Load() == 0 || m.forger.sent.Load() < 1000 {
				w.Fatal("there was no attack")
			}
			if w.udp {
				for range 5 {
					o := w.overhear()
					m.forger.portUnreachable(o.conmgr, m.target)
					v.apps.expectUntouched("a forged ICMP error", w.interval)
				}
			}
			v.expectHealthy()
		},
	})
}

// victims are a conmgr, its applications, and the daemons' books before the attack.
type victims struct {
	*world
	apps    *crowd
	console *bound
	known   overheard
	agent   usage

	lineBound int // see linesBound
}

// victims starts the conmgr, whose heartbeats are read from the first one on.
func (w *world) victims() *victims {
	w.Helper()
	w.must(w.captures[w.client].Trace(w.db1.Addr4))
	w.cm = w.startConmgr(w.client, nil)
	w.awaitMonitored(w.cm)
	v := &victims{world: w, apps: w.crowd(w.through(portPrimary)), console: w.target("primary"), lineBound: linesBound}
	v.known = w.overhear()
	if v.known.welcome.Session == 0 || v.known.conmgr == (netip.AddrPort{}) {
		w.Fatal("the handshake was not overheard")
	}
	return v
}

// underAttack runs attacks beside each other for attackTime and compares what the
// healthy session and the daemons do with the time before. at is called when
// the attacks run.
func (v *victims) underAttack(attacks []func(context.Context), at func()) {
	v.Helper()
	v.apps.expectUntouched("before the attack", calmTime)
	began := now()
	v.timing("calm", 0, began)
	v.agent = v.usage(v.agent1)
	agentLines, conmgrLines := len(v.lines(v.agent1)), len(v.lines(v.cm.Process))

	ctx, cancel := context.WithTimeout(v.Context(), attackTime)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, attack := range attacks {
		running.Go(func() { attack(ctx) })
	}
	at()
	peak := v.usage(v.agent1)
	v.expectNever("an application was disturbed, or the console", time.Until(deadline(ctx)), func() bool {
		peak.grow(v.usage(v.agent1))
		return v.apps.disturbed() || v.console.hasEnded()
	})
	running.Wait()
	v.timing("attacked", began, now())
	v.expectBounded(peak)
	v.expectQuiet("pgwatchdog", v.agent1, agentLines)
	v.expectQuiet("conmgr", v.cm.Process, conmgrLines)
}

func deadline(ctx context.Context) time.Time {
	end, _ := ctx.Deadline()
	return end
}

// expectHealthy fails the row when anybody was harmed.
func (v *victims) expectHealthy() {
	v.Helper()
	v.apps.expectUntouched("after the attack", v.timeout)
	if v.console.hasEnded() {
		v.failf("the console session was ended")
	}
	for _, p := range []*agenttest.Process{v.agent1, v.cm.Process} {
		if !p.Running() {
			v.failf("%s has ended", p.Name)
		}
	}
	v.expect("the instance is monitored", func() bool { return v.monitoring(v.cm, v.db1) == "monitored" })
	if got := v.open(portPrimary).value("SELECT 1::text"); got != "1" {
		v.failf("a new application got %q", got)
	}
}
