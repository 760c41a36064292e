// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// TestFleetTrouble: people are told why there is no session, until there is one.
func TestFleetTrouble(t *testing.T) {
	r := newFleetRig(t, fleetConfig(1))
	want := func(why string) {
		t.Helper()
		if got := r.f.View(fleetAt(r.now)).Instances[0].Why; got != why {
			t.Errorf("why is %q, want %q", got, why)
		}
	}
	want("never heard of")
	var out Actions
	r.f.Trouble(0, "connection refused", &out)
	if !out.ViewChanged {
		t.Error("the view does not change with the trouble")
	}
	out.Reset()
	r.f.Trouble(0, "connection refused", &out)
	if out.ViewChanged {
		t.Error("the view changes although the trouble is the same")
	}
	want("never heard of; its watchdog: connection refused")
	r.do(1100, func(now mono.Instant, out *Actions) {
		r.f.Changed(now, 0, heartbeat.Change{At: now, From: wire.StateInit, To: wire.StateUp, Reason: wire.ReasonArmed}, out)
	})
	r.do(1200, func(now mono.Instant, out *Actions) {
		r.f.Changed(now, 0, heartbeat.Change{At: now, From: wire.StateUp, To: wire.StateDown, Reason: wire.ReasonTimeout}, out)
	})
	want("never heard of") // the trouble is of before the session
}
