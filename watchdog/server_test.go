// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// mustServer makes a server of which only the loop and the links run.
func mustServer(t *testing.T) *server {
	t.Helper()
	return mustServerWith(t, Options{})
}

func mustServerWith(t *testing.T, o Options) *server {
	t.Helper()
	o.State = t.TempDir()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := newServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.links.Run(ctx) })
	running.Go(func() {
		if err := s.loop.Run(ctx); err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		s.keeper.close()
	})
	return s
}

// onLoop runs f on the loop and waits for it.
func (s *server) onLoop(f func()) {
	done := make(chan struct{})
	s.loop.Do(func() { f(); close(done) })
	<-done
}

// A configuration whose names take long to resolve does not come after the one that
// replaced it meanwhile.
func TestLatestConfigurationIsApplied(t *testing.T) {
	s := mustServer(t)
	setTo := func(port int, addresses string) func(*Sources) {
		return func(src *Sources) {
			src.Flags = []conf.Entry{
				{Name: "watchdog.port", Value: fmt.Sprint(port)},
				{Name: "watchdog.listen_addresses", Value: addresses},
				{Name: "watchdog.max_heartbeat_connections", Value: fmt.Sprint(port)},
			}
		}
	}
	slow := strings.Repeat("localhost, ", 300) + "127.0.0.2"
	for round := range 20 {
		old, latest := 40000+2*round, 40001+2*round
		var first sync.WaitGroup
		first.Go(func() { s.reconfigure(setTo(old, slow)) })
		agenttest.Eventually(t, time.Minute, "the first one is on its way", func() bool { return int(s.config().Port) == old })
		s.reconfigure(setTo(latest, "127.0.0.2"))
		first.Wait()
		s.onLoop(func() {
			if want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(latest)); !slices.Equal(s.gate.want, []netip.AddrPort{want}) {
				t.Errorf("listens on %v, configured is %v", s.gate.want[:min(len(s.gate.want), 3)], want)
			}
			if got := s.gate.admission.Load().Sessions; got != latest {
				t.Errorf("admits %d, configured are %d", got, latest)
			}
		})
		if got := s.scope.Load().heartbeat; int(got) != latest {
			t.Errorf("the scope has port %d, configured is %d", got, latest)
		}
		if t.Failed() {
			return
		}
	}
}

// A loop that is stuck gives no sign of life, one that runs gives them again and
// again.
func TestAliveComesFromTheLoop(t *testing.T) {
	var signs atomic.Int64
	s := mustServerWith(t, Options{Alive: func() { signs.Add(1) }, AliveEvery: time.Millisecond})
	agenttest.Eventually(t, time.Minute, "three signs of life", func() bool { return signs.Load() >= 3 })

	stuck, free := make(chan struct{}), make(chan struct{})
	s.loop.Do(func() { close(stuck); <-free })
	<-stuck
	before := signs.Load()
	agenttest.Never(t, 100*time.Millisecond, "a sign of life of a stuck loop", func() bool { return signs.Load() != before })
	close(free)
	agenttest.Eventually(t, time.Minute, "a sign of life again", func() bool { return signs.Load() > before })
}
