// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// tally counts what happened, to show that the simulation is worth its name.
type tally struct {
	frames, pauses, holds, armed, redialed, reordered, hints int
	verdicts                                                 [256]int // by reason

	cookies, refused, refusedSealed, forgotten int              // answers outside a session
	attacks                                    [attackKinds]int // frames that the attacker has put in
	dropped                                    int              // frames that no proof let through, replays included
	paired                                     int              // armed ends whose keys were compared
	rotated, keyless                           int              // keys changed in order; armed sessions that lost theirs
}

func (t *tally) add(o *tally) {
	t.frames += o.frames
	t.pauses += o.pauses
	t.holds += o.holds
	t.armed += o.armed
	t.redialed += o.redialed
	t.reordered += o.reordered
	t.hints += o.hints
	for i, n := range o.verdicts {
		t.verdicts[i] += n
	}
	t.cookies += o.cookies
	t.refused += o.refused
	t.refusedSealed += o.refusedSealed
	t.forgotten += o.forgotten
	for i, n := range o.attacks {
		t.attacks[i] += n
	}
	t.dropped += o.dropped
	t.paired += o.paired
	t.rotated += o.rotated
	t.keyless += o.keyless
}

func (t *tally) String() string {
	s := fmt.Sprintf("%d frames, %d own pauses, %d sessions armed, %d relations survived their transport, %d fuses held, %d frames out of order, %d hints; verdicts:",
		t.frames, t.pauses, t.armed, t.redialed, t.holds, t.reordered, t.hints)
	for why, n := range t.verdicts {
		if n > 0 {
			s += fmt.Sprintf(" %d %v,", n, wire.Reason(why))
		}
	}
	s = strings.TrimSuffix(s, ",") + "; attacks:"
	for a, n := range t.attacks {
		if n > 0 {
			s += fmt.Sprintf(" %d %v,", n, attack(a))
		}
	}
	return s + fmt.Sprintf(" %d frames dropped without proof; %d cookies asked for, %d refusals (%d sealed, %d for want of the session), %d pairs of keys compared, %d rotations in order, %d sessions ended with their key",
		t.dropped, t.cookies, t.refused, t.refusedSealed, t.forgotten, t.paired, t.rotated, t.keyless)
}

// check fails when something that the simulation is for never happened.
func (t *tally) check(test *testing.T) {
	for _, why := range []wire.Reason{wire.ReasonTimeout, wire.ReasonLinkDown, wire.ReasonDisconnect, wire.ReasonPeerDown, wire.ReasonStop, wire.ReasonRestart} {
		if t.verdicts[why] == 0 {
			test.Errorf("no verdict for %v in all seeds: the simulation proves nothing about it", why)
		}
	}
	for kind := attackReplay; kind < attackKinds; kind++ {
		if t.attacks[kind] == 0 {
			test.Errorf("no %v frame in all seeds: the simulation proves nothing about it", kind)
		}
	}
	for what, n := range map[string]int{
		"own pause": t.pauses, "hint": t.hints, "fuse": t.holds, "redial": t.redialed, "reordering": t.reordered,
		"dropped frame": t.dropped, "cookie": t.cookies, "sealed refusal": t.refusedSealed,
		"unsealed refusal": t.refused - t.refusedSealed - t.forgotten, "forgotten session": t.forgotten, "pair of keys": t.paired,
		"rotation in order": t.rotated, "session without its key": t.keyless,
	} {
		if n == 0 {
			test.Errorf("no %s in all seeds: the simulation proves nothing about it", what)
		}
	}
}
