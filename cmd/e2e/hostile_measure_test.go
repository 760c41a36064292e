// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

const (
	// memoryBound is what an attack may cost a watchdog, in KiB: 256 half-open
	// connections and the runtime's slack, not what was sent to it.
	memoryBound = 16 << 10
	// descriptorBound is twice the 256 that may be half-open, and then shaking
	// hands.
	descriptorBound = 2*256 + 32
	// linesBound is what one daemon may log in an attack: a line or two for each
	// of the causes there are. Whoever may open sessions gets 60 for those.
	linesBound = 20
	localBound = linesBound + 60
)

// usage is what a process holds.
type usage struct{ rss, peak, descriptors int } // KiB, KiB, number

func (w *world) usage(p *agenttest.Process) (u usage) {
	w.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.Pid())
	text, err := os.ReadFile(dir + "status")
	w.must(err)
	for line := range strings.Lines(string(text)) {
		for name, to := range map[string]*int{"VmRSS:": &u.rss, "VmHWM:": &u.peak} {
			if f := strings.Fields(line); len(f) > 1 && f[0] == name {
				*to, err = strconv.Atoi(f[1])
				w.must(err)
			}
		}
	}
	fds, err := os.ReadDir(dir + "fd")
	w.must(err)
	u.descriptors = len(fds)
	return u
}

// grow takes the larger of each.
func (u *usage) grow(o usage) {
	u.rss, u.peak, u.descriptors = max(u.rss, o.rss), max(u.peak, o.peak), max(u.descriptors, o.descriptors)
}

// expectBounded checks what the watchdog held at most in the attack.
func (v *victims) expectBounded(peak usage) {
	v.Helper()
	after := v.usage(v.agent1)
	v.figure("RSS", "%d -> %d -> %d KiB (high water %d)", v.agent.rss, peak.rss, after.rss, after.peak)
	v.figure("descriptors", "%d -> %d -> %d", v.agent.descriptors, peak.descriptors, after.descriptors)
	if grown := max(peak.rss, after.peak) - v.agent.rss; grown > memoryBound {
		v.failf("pgwatchdog has grown by %d KiB: expected at most %d", grown, memoryBound)
	}
	if grown := peak.descriptors - v.agent.descriptors; grown > descriptorBound {
		v.failf("pgwatchdog has opened %d descriptors more: expected at most %d", grown, descriptorBound)
	}
}

// expectQuiet checks how much a daemon has logged since it had so many lines.
func (v *victims) expectQuiet(who string, p *agenttest.Process, before int) {
	v.Helper()
	lines := v.lines(p)[before:]
	v.figure(who+"'s log", "%d lines", len(lines))
	if len(lines) > v.lineBound {
		v.failf("%s wrote %d lines: expected at most %d, the first ones\n%s", who, len(lines), v.lineBound, strings.Join(lines[:linesBound], "\n"))
	}
}

// timing measures the gaps between the healthy session's frames in both
// directions, by the kernel's time at the client's interface, and without those
// that were forged. A gap as long as
// the timeout would have been a verdict.
func (v *victims) timing(when string, from, to mono.Instant) {
	v.Helper()
	packets, err := v.captures[v.client].Traced()
	v.must(err)
	last := map[bool]mono.Instant{}
	gaps := map[bool][]time.Duration{}
	for _, p := range packets {
		if p.At.Before(from) || p.At.After(to) ||
			p.Src != v.known.conmgr && p.Dst != v.known.conmgr || p.From != v.client && p.From != v.db1 {
			continue
		}
		if !last[p.Sent].IsZero() {
			gaps[p.Sent] = append(gaps[p.Sent], p.At.Sub(last[p.Sent]))
		}
		last[p.Sent] = p.At
	}
	for sent, who := range map[bool]string{true: "conmgr", false: "pgwatchdog"} {
		all := slices.Sorted(slices.Values(gaps[sent]))
		if len(all) < 10 {
			v.failf("%s, %s: %d beats: the session has ended", who, when, len(all))
		}
		v.measure(fmt.Sprintf("%s %s gap p99", when, who), all[len(all)*99/100])
		v.measure(fmt.Sprintf("%s %s gap max", when, who), all[len(all)-1])
		if worst := all[len(all)-1]; worst >= v.timeout {
			v.failf("%s, %s: %v between two beats: expected less than %v", who, when, worst, v.timeout)
		}
	}
}
