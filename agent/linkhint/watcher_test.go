// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

func TestAnnounce(t *testing.T) {
	n := mustNode(t)
	for _, c := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no BPF", Config{}, []string{"source=counter"}},
		{"no BPF, no counter", Config{Without: []Source{Counter}}, []string{"source=rtnetlink"}},
		{"BPF", Config{BPF: true}, []string{"source=counter", "source=fentry", "source=kprobe"}},
		{"BPF without kprobe", Config{BPF: true, Without: []Source{Kprobe}}, []string{"source=counter", "source=fentry"}},
		{"only rtnetlink", Config{BPF: true, Without: []Source{Fentry, Kprobe, Counter, Rtnetlink}}, []string{"source=rtnetlink"}},
	} {
		var log bytes.Buffer
		c.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		w := n.idle(t, c.cfg, noBPF)
		w.announce()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		ok := len(lines) == len(c.want)
		for i, line := range lines {
			ok = ok && strings.Contains(line, c.want[i]) && strings.Contains(line, "level=INFO")
			ok = ok && (i == 0 || strings.Contains(line, "err=") && strings.Contains(line, "hint="))
		}
		if !ok {
			t.Errorf("%s: got %q, want %v", c.name, lines, c.want)
		}
		if len(w.Missing()) != len(c.want)-1 {
			t.Errorf("%s: missing %+v", c.name, w.Missing())
		}
	}
}

// noBPF is a machine where neither program loads.
func noBPF(_ *slog.Logger, without []Source) (carrierSource, []Missing) {
	var missing []Missing
	for _, s := range []Source{Fentry, Kprobe} {
		missing = append(missing, Missing{Source: s, Err: context.Canceled, Hint: "none"})
		for _, w := range without {
			if w == s {
				missing = missing[:len(missing)-1]
			}
		}
	}
	return nil, missing
}

func TestWatchTellsOnce(t *testing.T) {
	n := mustNode(t)
	n.watch(t, Config{})
	addrs := n.mustWatch(t, "192.0.2.7", "127.0.0.1")
	off, here := addrs[0], addrs[1]
	n.mustPath(t, off, Off)
	// Who comes later wants to know as well.
	n.Watch(off)
	agenttest.Eventually(t, limit, "told again", func() bool { return n.told(off) == 2 })
	if n.told(here) != 0 {
		t.Errorf("told of a good path: %+v", n.last(here))
	}
	// One watcher is left, then none.
	n.Unwatch(off)
	n.settle(t)
	n.ip(t, "route add 192.0.2.7/32 dev eth0")
	n.mustPath(t, off, Good)
	n.Unwatch(off)
	n.settle(t)
	told := n.told(off)
	n.ip(t, "route delete 192.0.2.7/32 dev eth0")
	n.Watch(addrOf("192.0.2.8"))
	n.mustPath(t, addrOf("192.0.2.8"), Off)
	if got := n.told(off); got != told {
		t.Errorf("told after the last Unwatch: %+v", n.last(off))
	}
}

// A link-local peer whose device comes later, and goes.
func TestZoneComesAndGoes(t *testing.T) {
	n := mustNode(t)
	n.watch(t, Config{})
	peer := n.mustWatch(t, "fe80::5%t0")[0]
	n.mustPath(t, peer, Off)
	n.comeAndGo(t, n.mustTap(t, "t0"), peer)
}

// comeAndGo sets a device up, takes its carrier and then the device away; the way to
// the peer leads over it.
func (n *node) comeAndGo(t *testing.T, p *tap, peer netip.Addr) {
	t.Helper()
	n.ip(t, "link set "+p.name+" up")
	n.mustPath(t, peer, Good)
	p.carrier(t, false)
	n.mustPath(t, peer, Lost)
	p.remove()
	n.mustPath(t, peer, Off)
}

// Each event is counted by its source and kind, its latency where the source tells one.
func TestFiguresCountEvents(t *testing.T) {
	n := mustNode(t)
	p := n.mustTap(t, "t0")
	n.ip(t, "address add 10.1.0.1/24 dev t0")
	t.Cleanup(n.startWith(t, Config{}, openBPF))
	n.comeAndGo(t, p, n.mustWatch(t, "10.1.0.5")[0])
	f := n.w.Figures()
	kinds := map[Kind]uint64{}
	for _, bySource := range f.Events {
		for k, count := range bySource {
			kinds[Kind(k)] += count
		}
	}
	for _, k := range []Kind{CarrierLost, AdminUp, Removed} {
		if kinds[k] == 0 {
			t.Errorf("no event %q was counted: %v", k, kinds)
		}
	}
	// Who does not tell how late it is is not measured.
	var told, measured uint64
	for source, c := range f.Latency {
		measured += c.Count
		for _, count := range f.Events[source] {
			told += count
		}
	}
	if told != measured {
		t.Errorf("%d events of sources that tell their latency, %d measured", told, measured)
	}
}

// Watch and Unwatch from many goroutines, while routes change and at the end.
func TestWatchWhileRunning(t *testing.T) {
	n := mustNode(t)
	stop := n.startWith(t, Config{}, openBPF)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 100 {
				peer := netip.AddrFrom4([4]byte{10, 99, byte(i % 4), byte(j)})
				n.w.Watch(peer)
				_, _ = n.w.Source(), n.w.Missing()
				n.w.Unwatch(peer)
			}
		})
	}
	for range 20 {
		n.ip(t, "route add 10.50.0.0/16 dev eth0", "route delete 10.50.0.0/16")
	}
	callers.Wait()
	n.settle(t)
	stop()
	n.w.Watch(peerA) // nothing happens, and nothing is kept
	if n.w.requests != nil {
		t.Errorf("kept %v", n.w.requests)
	}
	if err := n.w.Close(); err != nil {
		t.Errorf("close after the end: %v", err)
	}
}

// Look-ups are gathered, and rest after a round in proportion to what it took.
func TestRoundsTakeABoundedShare(t *testing.T) {
	n := mustNode(t)
	w := n.idle(t, Config{}, noBPF)
	const peers = 3*roundSome + 1
	for i := range peers {
		w.Watch(netip.AddrFrom4([4]byte{10, 99, 0, byte(2 + i)}))
	}
	w.takeRequests()
	for len(w.round.waiting) > 0 {
		w.lookUpSome()
	}
	for range 100 {
		w.staleRoutes()
	}
	if !w.round.armed || w.round.waiting != nil {
		t.Fatalf("not gathered: %+v", w.round)
	}
	w.startRound()
	turns := 0
	for ; len(w.round.waiting) > 0; turns++ {
		w.lookUpSome()
		w.staleRoutes() // a flood goes on
	}
	if want := (peers + roundSome - 1) / roundSome; turns != want {
		t.Errorf("%d turns, want %d", turns, want)
	}
	if !w.round.armed {
		t.Error("changes during the round are forgotten")
	}

	r := round{spent: 10 * time.Millisecond}
	now := clock.Now()
	r.end(now)
	if want := now.Add(190 * time.Millisecond); r.rest != want || r.spent != 0 {
		t.Errorf("rest until %d, want %d", r.rest, want)
	}
}

// A flood of routes ends with the ways as they are then.
func TestRouteFlood(t *testing.T) {
	n := mustNode(t)
	p := n.mustTap(t, "t0")
	n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
	n.watch(t, Config{})
	peer := n.mustWatch(t, "10.1.0.5")[0]
	var lines []string
	for i := range 2000 {
		lines = append(lines, "route add 10.60."+netip.AddrFrom4([4]byte{0, 0, byte(i >> 8), byte(i)}).String()[4:]+"/32 dev eth0")
	}
	begin := time.Now()
	n.ip(t, lines...)
	n.ip(t, "route add 192.0.2.9/32 dev t0")
	far := n.mustWatch(t, "192.0.2.9")[0]
	t.Logf("%d routes in %v", len(lines), time.Since(begin))
	p.carrier(t, false)
	n.mustPath(t, peer, Lost)
	n.mustPath(t, far, Lost)
}

func BenchmarkLookUp(b *testing.B) {
	n := mustNode(b)
	w := n.idle(b, Config{}, noBPF)
	for b.Loop() {
		if _, err := w.kernel.ways(addrOf("10.99.0.2"), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookAtADevice(b *testing.B) {
	n := mustNode(b)
	w := n.idle(b, Config{}, noBPF)
	index := w.table.indexOf("eth0")
	for b.Loop() {
		if _, found, err := w.kernel.device(index); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

// A session that was armed over a link has proven that it is back, though nobody
// has told yet: who asks to watch it is not told what is known no better.
func TestWatchLooksAgain(t *testing.T) {
	n := mustNode(t)
	w := n.idle(t, Config{}, openBPF)
	peer := addrOf("10.99.0.77")
	ask := func() {
		w.Watch(peer)
		w.takeRequests()
		for len(w.round.waiting) > 0 {
			w.lookUpSome()
		}
	}
	stale := func() {
		eth0 := w.table.devices[w.table.indexOf("eth0")]
		eth0.carrier = false
		w.table.setDevice(eth0, Event{})
	}
	stale()
	ask()
	if n.told(peer) != 0 {
		t.Errorf("told of a link that is there: %+v", n.last(peer))
	}
	stale()
	ask()
	if p := n.last(peer); p.State != Good {
		t.Errorf("told of a link that is there: %+v", p)
	}
}
