// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// row is one line of the failure table.
type row struct {
	name string
	// run makes the row happen and checks it with the world's expectations.
	run func(w *world)
	// with changes the world for all variants; nil leaves it.
	with func(s *setup)
	// off switches off the part under test: run must fail then.
	off func(s *setup)
	// Variants that the row leaves out: over IPv6, at whole seconds, and over UDP
	// because it is about a connection, which UDP does not have.
	v4Only, fastOnly, tcpOnly bool
	// udpOnly says that every variant is over UDP: the row loses frames.
	udpOnly bool
	// tapped adds a variant with devices that the kernel throttles as it does real
	// ones; see unplug.
	tapped bool
}

// setup says what world a row runs in.
type setup struct {
	interval, timeout time.Duration
	v6                bool
	udp               bool              // heartbeats over UDP, with a key
	keyed             bool              // with a key over TCP too
	stolen            bool              // the attacker holds the key
	hosts             []string          // besides client, db1, db2
	tap               bool              // the variant with tap devices
	tapHosts          []string          // whose device is one
	noStandby         bool              // db2 has no instance
	agents            map[string]string // watchdog.* of both agents
	agentOptions      agenttest.WatchdogOptions
	noAgents          bool
	conmgr            map[string]string // conmgr.conf, raw values
	noConmgr          bool
	postgres          map[string]string // postgresql.conf of both instances
	fresh             bool              // db2 is a cluster of its own
	agentsAway        bool              // see switchOffAgents
	away              time.Duration     // how long the row leaves something away
	policyOff         bool              // the row's policies are the defaults
	stopMode          string            // of cm_ctl stop, instead of the row's own
	worsePath         bool              // see the rows of bad paths
	unanswered        bool              // probes get no answer; see dropAnswers
	unpaused          bool              // kills are not paused; see pauseKills
	// impatient bounds every expectation, for variants that must fail.
	impatient time.Duration
}

func fast() setup {
	return setup{
		interval: 100 * time.Millisecond, timeout: 300 * time.Millisecond,
		agents: map[string]string{"watchdog.min_heartbeat_interval": "10ms"},
		conmgr: map[string]string{"proxy_listen": "'27551:primary, 27552:standby, 27553:any'", "log_min_messages": "INFO"},
	}
}

// calm gives a row whose subject is not the timeout one that a busy machine does
// not reach by itself.
func calm(s *setup) { s.timeout = max(s.timeout, time.Second) }

// prove runs all variants of a row.
func prove(t *testing.T, r row) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	type variant struct {
		name   string
		change func(*setup)
	}
	variants := []variant{{"100ms", func(*setup) {}}}
	switch {
	case r.tcpOnly || r.udpOnly:
		if !r.v4Only {
			variants = append(variants, variant{"100ms-v6", func(s *setup) { s.v6 = true }})
		}
	case r.v4Only:
		variants = append(variants, variant{"udp", func(s *setup) { s.udp = true }})
	default: // the other transport over the other family
		variants = append(variants, variant{"udp-v6", func(s *setup) { s.udp, s.v6 = true, true }})
	}
	if !r.fastOnly {
		variants = append(variants, variant{"seconds", func(s *setup) { s.interval, s.timeout = time.Second, 2*time.Second }})
	}
	if r.tapped {
		variants = append(variants, variant{"tap", func(s *setup) { s.tap = true }})
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := fast()
			s.udp = r.udpOnly
			v.change(&s)
			if r.with != nil {
				r.with(&s)
			}
			if why := runRow(t, r, s, v.name); why != "" {
				t.Error(why)
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		s := fast()
		s.udp = r.udpOnly
		if r.with != nil {
			r.with(&s)
		}
		s.impatient = 4 * time.Second
		r.off(&s)
		if runRow(t, r, s, "off") == "" {
			t.Error("passed although the part under test was switched off: it proves nothing")
		}
	})
}

// failed is how an unmet expectation leaves a row.
type failed struct{ why string }

// runRow runs a row and returns why it failed, "" when it did not. Where a daemon
// says that it stood still for a good part of the timeout, a failure proves nothing:
// the other end was right to act on the silence. The row is run again then, twice at
// most.
func runRow(t *testing.T, r row, s setup, variant string) (why string) {
	t.Helper()
	const runs = 3
	for n := range runs {
		w := newWorld(t, s)
		why = runOnce(w, r, variant)
		if why == "" || n == runs-1 || !w.stoodStill() {
			break
		}
		t.Logf("run again, as the machine stood still: %s", why)
		w.must(w.lab.Close())
	}
	return why
}

// stoodStill reports whether a daemon has said so in its log (agent/peer).
func (w *world) stoodStill() bool {
	w.Helper()
	for _, p := range w.lab.Processes() {
		text, err := p.Log()
		w.must(err)
		if strings.Contains(text, "this process stood still") {
			return true
		}
	}
	return false
}

// runOnce runs a row in its world. Trouble with the lab itself ends the test.
func runOnce(w *world, r row, variant string) (why string) {
	w.Helper()
	outcome := "broken: trouble with the lab"
	defer func() {
		switch x := recover().(type) {
		case nil:
			results.add(r.name, variant, outcome, w)
		case failed:
			why = x.why
			results.add(r.name, variant, "failed: "+why, w)
		default:
			panic(x)
		}
	}()
	r.run(w)
	outcome = "passed"
	return ""
}

// results are what the rows did, for the summary.
var results resultList

type resultList struct {
	mu     sync.Mutex // guards the following
	lines  []resultLine
	others []string // lines of another summary
}

// takeOver adds a line of the summary of a virtual machine.
func (l *resultList) takeOver(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others = append(l.others, line)
}

type resultLine struct {
	row, variant, outcome string
	measured              map[string]time.Duration
	figures               map[string]string
	counted               map[string]uint64
}

func (l *resultList) add(row, variant, outcome string, w *world) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, resultLine{row, variant, outcome, w.measured, w.figures, w.counted})
}

func (l *resultList) print() {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.lines, func(a, b resultLine) int {
		return cmp.Or(strings.Compare(a.row, b.row), strings.Compare(a.variant, b.variant))
	})
	for _, r := range l.lines {
		text := r.outcome
		if r.variant == "off" && strings.HasPrefix(text, "failed") {
			text = "fails, as it must: " + strings.TrimPrefix(text, "failed: ")
		}
		for _, what := range slices.Sorted(maps.Keys(r.measured)) {
			text += fmt.Sprintf("; %s %.1f ms", what, r.measured[what].Seconds()*1000)
		}
		for _, what := range slices.Sorted(maps.Keys(r.figures)) {
			text += fmt.Sprintf("; %s %s", what, r.figures[what])
		}
		for _, what := range slices.Sorted(maps.Keys(r.counted)) {
			text += fmt.Sprintf("; %d %s", r.counted[what], what)
		}
		fmt.Printf("%-22s %-9s %s\n", r.row, r.variant, text)
	}
	for _, line := range l.others {
		fmt.Println(line)
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	results.print()
	os.Exit(code)
}
