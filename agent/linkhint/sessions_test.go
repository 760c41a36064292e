// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// noted are sessions that note what they are told.
type noted []string

func (n *noted) Do(f func()) { f() }
func (n *noted) LinkLost(peers []netip.Addr, grace time.Duration) {
	*n = append(*n, fmt.Sprintf("%v lost, %v", peers, min(grace, time.Hour)))
}
func (n *noted) LinkBack(peers []netip.Addr) { *n = append(*n, fmt.Sprintf("%v back", peers)) }

func TestTell(t *testing.T) {
	var got noted
	count := true
	told := tell(&got, func() (time.Duration, bool) { return time.Second, count })
	var paths []Path
	for i, s := range []State{Lost, Off, Good, Lost} {
		paths = append(paths, Path{Peer: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), State: s})
	}
	told(paths)
	count = false // switched off while a hint stands
	told(paths)
	want := noted{
		"[192.0.2.2] back", "[192.0.2.0 192.0.2.3] lost, 1s", "[192.0.2.1] lost, 1h0m0s",
		"[192.0.2.2] back",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A daemon goes on without links, and says that it does.
func TestHintsWithoutAWatcher(t *testing.T) {
	h := &Hints{log: slog.New(slog.DiscardHandler)}
	h.Watch(addrOf("192.0.2.1"))
	h.Unwatch(addrOf("192.0.2.1"))
	h.Run(t.Context())
	if got := h.Source(); got != "none" {
		t.Errorf("source %q", got)
	}
}

// Rtnetlink breaks while the daemon runs: the source that stands in views is gone.
func TestHintsEnd(t *testing.T) {
	n := mustNode(t)
	var h *Hints
	err := n.host.Do(func() error {
		h = Open(new(noted), false, func() (time.Duration, bool) { return 0, true }, slog.New(slog.DiscardHandler))
		if h.w == nil {
			return errors.New("no Watcher")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Source(); got != Counter.String() {
		t.Errorf("source %q", got)
	}
	if err := h.w.rt.close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { h.Run(context.Background()); close(done) }()
	agenttest.Eventually(t, limit, "the end", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	if got := h.Source(); got != "none" {
		t.Errorf("source %q after the end", got)
	}
}
