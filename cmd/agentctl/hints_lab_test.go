// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The cable of a host is cut and comes back: its events and the way to a peer
// behind it are shown.
func TestHintsOfACable(t *testing.T) {
	lab := agenttest.MustLabWith(t, agenttest.Options{Hosts: []string{"a", "b"}, Tap: []string{"a"}})
	a, b := lab.Host("a"), lab.Host("b")
	s := newSession(0, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		exit := -1
		err := a.Do(func() error {
			exit = s.run(ctx, "hints", "--json", "--device", "eth0", "--peer", b.Addr4.String(), "--count", "4")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		ended <- exit
	}()
	saw := func(n int) func() bool { return func() bool { return strings.Count(s.out.String(), "\n") == n } }
	agenttest.Eventually(t, limit, "the start", func() bool { return strings.Contains(s.errs.String(), "watching links by") })
	agenttest.MustFault(t, a.Unplug)
	agenttest.Eventually(t, limit, "the loss", saw(2))
	agenttest.MustFault(t, a.Plug)
	if exit := <-ended; exit != 0 {
		t.Fatalf("exit %d: %s", exit, s.errs)
	}
	var got []string
	for line := range strings.Lines(s.out.String()) {
		var o hintObject
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if o.Device == nil || *o.Device != "eth0" || o.Source == nil || o.Peer != nil && *o.Peer != b.Addr4 {
			t.Errorf("line %s", line)
		}
		got = append(got, o.Event)
	}
	if text := strings.Join(got, ", "); text != "carrier lost, path lost, carrier back, path good" {
		t.Errorf("events %s", text)
	}
}
