// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func TestFleetSplitHigherTimelineWins(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(2))
	r.arm(1000, 0, fleetPrimary(1))
	r.arm(1000, 1, fleetStandby())
	r.wantLosers(false, false)
	// Promoted while the old primary still lives: its sessions end at once.
	r.instance(2000, 1, fleetPrimary(2))
	r.wantFaults("1 role change standby read-only", "0 stale primary")
	r.wantLosers(true, false)
	if why := r.view().Instances[0].Why; why != "stale primary on timeline 1: 1 db2:5432 has had timeline 2" {
		t.Errorf("why %q", why)
	}
	if r.logged("stale primary") != 1 || r.view().Split != "" {
		t.Errorf("log %v, split %q: want one line and no tie", r.log, r.view().Split)
	}
	// It is told no second time when it dies.
	r.session(3000, 0, wire.StateDown, wire.ReasonTimeout)
	r.wantFaults()
	r.want(0, Faulted)
	// Back as a primary it is stale from its first instant on.
	r.arm(4000, 0, fleetPrimary(1))
	r.kernel(4100, 0)
	r.wantLosers(true, false)
	r.wantFaults()
	if n := r.logged("stale primary"); n != 2 {
		t.Errorf("%d lines, want one each time: %v", n, r.log)
	}
	// And as a standby it serves again.
	r.instance(5000, 0, fleetStandby())
	r.wantLosers(false, false)
	r.session(6000, 0, wire.StateDown, wire.ReasonPeerDown)
	r.wantFaults("0 peer gave up")
}

func TestFleetSplitStaleStaysStaleWithoutTheWinner(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(2))
	r.arm(1000, 0, fleetPrimary(1))
	r.arm(1000, 1, fleetPrimary(2))
	r.session(2000, 1, wire.StateDown, wire.ReasonTimeout)
	r.want(1, Faulted)
	r.wantLosers(true, false)
	r.instance(3000, 0, fleetPrimary(2))
	r.wantLosers(false, false)
}

func TestFleetSplitUnmonitoredPrimaryLosesToo(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(2))
	r.arm(1000, 0, fleetPrimary(1))
	r.arm(1000, 1, fleetStandby())
	r.session(2000, 0, wire.StateDown, wire.ReasonStop)
	r.instance(2100, 1, fleetPrimary(2))
	r.want(0, Unmonitored)
	r.wantLosers(true, false)
	r.wantFaults("1 role change standby read-only", "0 stale primary")
}

func TestFleetSplitEqualTimelines(t *testing.T) {
	t.Parallel()
	t.Run("the one that was primary before", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(2))
		r.arm(1000, 1, fleetPrimary(1))
		r.arm(1000, 0, fleetStandby())
		r.instance(1100, 0, fleetPrimary(1))
		r.wantLosers(true, false)
		r.wantFaults("0 role change standby read-only", "0 stale primary")
		if why := r.view().Instances[0].Why; why != "stale primary: 1 db2:5432 was primary on timeline 1 before" {
			t.Errorf("why %q", why)
		}
		// It is primary alone after the other's death, and the incumbent then.
		r.session(3000, 1, wire.StateDown, wire.ReasonPeerDown)
		r.wantLosers(false, false)
		r.arm(4000, 1, fleetPrimary(1))
		r.wantLosers(false, true)
	})
	t.Run("the first to report is no incumbent", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(3)) // the third never reports
		r.arm(1000, 0, fleetPrimary(1))
		r.wantLosers(false, false, false)
		r.arm(1299, 1, fleetPrimary(1))
		r.wantLosers(true, true, false)
		r.wantFaults()
		want := "0 db1:5432 and 1 db2:5432 are primaries on timeline 1: none of them is used"
		if got := r.view().Split; got != want {
			t.Errorf("split %q, want %q", got, want)
		}
		r.run(10000)
		r.wantLosers(true, true, false)
		if r.logged("several primaries") != 1 {
			t.Errorf("log %v, want one error", r.log)
		}
		// One steps back: the other is used, nobody dies of it.
		r.instance(11000, 1, fleetStandby())
		r.wantLosers(false, false, false)
		if got := r.view().Split; got != "" {
			t.Errorf("split %q after it was over", got)
		}
		r.take()
		// Tied, then overtaken.
		r.instance(12000, 1, fleetPrimary(2))
		r.wantLosers(true, false, false)
	})
	t.Run("alone for a timeout is an incumbent", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(3))
		r.arm(1000, 0, fleetPrimary(1))
		r.session(1200, 1, wire.StateUp, wire.ReasonArmed)
		r.instance(1301, 1, fleetPrimary(1))
		r.wantLosers(false, true, false)
	})
	t.Run("alone until it is settled is none", func(t *testing.T) {
		t.Parallel()
		cfg := fleetConfig(3)
		cfg.Settle = 2300 * time.Millisecond
		r := newFleetRig(t, cfg)
		r.arm(1000, 0, fleetPrimary(1))
		r.arm(3299, 1, fleetPrimary(1))
		r.wantLosers(true, true, false)
	})
}

func TestFleetSplitTiedThenDecided(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(2))
	r.arm(1000, 0, fleetPrimary(1)) // in use until the other one reports
	r.arm(1000, 1, fleetPrimary(1))
	r.wantFaults()
	r.instance(2000, 1, fleetPrimary(2))
	r.wantFaults("0 stale primary")
	r.wantLosers(true, false)
}

func TestFleetSplitKillsNobodyByIgnorance(t *testing.T) {
	t.Parallel()
	cfg := fleetConfig(2)
	r := newFleetRig(t, cfg)
	r.arm(1000, 0, fleetPrimary(1))
	r.arm(1000, 1, fleetStandby())
	r.instance(2000, 1, fleetPrimary(0)) // promoted, timeline not read yet
	r.wantFaults("1 role change standby read-only")
	r.wantLosers(false, true)

	cfg.CloseOnStalePrimary = false
	r = newFleetRig(t, cfg)
	r.arm(1000, 0, fleetPrimary(1))
	r.arm(1000, 1, fleetPrimary(2))
	r.wantFaults()
	r.wantLosers(true, false)
	// Its applications live on, so they are told when it dies.
	r.session(3000, 0, wire.StateDown, wire.ReasonTimeout)
	r.wantFaults("0 timeout")
}

func TestFleetSplitIgnoresWhatIsNotInUse(t *testing.T) {
	t.Parallel()
	cfg := fleetConfig(2)
	cfg.SystemID = fleetSystem
	r := newFleetRig(t, cfg)
	r.arm(1000, 0, fleetWith(fleetPrimary(9), func(s *wire.Instance) { s.SystemID = 1 }))
	r.arm(1000, 1, fleetPrimary(1))
	r.wantLosers(false, false)
	if why := r.view().Instances[0].Why; !strings.Contains(why, "system identifier is 1, expected 7001") {
		t.Errorf("why %q", why)
	}
}

// The time to report is long enough for an agent that refuses the first attempt.
func TestFleetSettlesAfterAnotherAttempt(t *testing.T) {
	t.Parallel()
	fc := fleetConfigOf(&Config{HeartbeatTimeout: 300 * time.Millisecond, HeartbeatConnectInterval: time.Second})
	if want := 2300 * time.Millisecond; fc.Settle != want {
		t.Errorf("settled after %v, want %v", fc.Settle, want)
	}
}
