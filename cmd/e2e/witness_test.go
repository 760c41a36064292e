// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// fiveBeats gives a row over a bad path its timers, and makes every verdict of
// either end a matter of applications.
func fiveBeats(s *setup) {
	alone(s)
	silenceIsFault(s)
	s.timeout = 5 * s.interval
}

// witnesses are sessions of the client host that a verdict of either end would
// end: some through conmgr, some past it, one on the console, one that talks all
// the time.
type witnesses struct {
	w             *world
	apps, direct  *crowd
	console, chat *app
}

func (w *world) witnesses() *witnesses {
	w.Helper()
	x := &witnesses{
		w: w, apps: w.crowd(w.through(portPrimary)), direct: w.crowd(w.directly(w.client, w.primary)),
		console: w.bind("primary"), chat: w.open(portPrimary),
	}
	x.chat.talk()
	return x
}

// talk asks and asks again, until there is an error; see ended.
func (a *app) talk() {
	a.async(func(ctx context.Context) error {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := a.conn.Exec(ctx, "SELECT 1"); err != nil {
				return err
			}
			<-tick.C
		}
	})
}

func (x *witnesses) disturbed() bool {
	return x.apps.disturbed() || x.direct.disturbed() || x.console.hasEnded() || x.chat.hasEnded()
}

// expectUnnoticed fails the row when anybody is told anything within the time.
func (x *witnesses) expectUnnoticed(what string, during time.Duration) {
	x.w.Helper()
	x.w.expectNever(what+": a session ended", during, x.disturbed)
}

// expectAlive asks every session and the server whether it still lives.
func (x *witnesses) expectAlive(what string) {
	x.w.Helper()
	x.apps.expectUntouched(what, 0)
	x.direct.expectUntouched(what, 0)
	pids := slices.Concat(x.apps.pids(), x.direct.pids(), []uint32{x.chat.pid})
	if n := x.w.living(x.w.primary, pids); n != len(pids) {
		x.w.failf("%s: %d of %d backends are left", what, n, len(pids))
	}
}

// dropAnswers switches the missing-beat probes off where the variant is without
// them: who asks for a late beat gets no answer. All other frames pass.
func (w *world) dropAnswers() {
	w.Helper()
	if !w.unanswered {
		return
	}
	// Behind the 8 bytes of UDP's header: the type, then the flags (see wire).
	const udp = 8 * 8
	answer := fmt.Sprintf("udp dport != 0 @th,%d,8 == %d @th,%d,16 & %d != 0",
		udp+8*wire.OffsetType, wire.TypeBeat, udp+8*(wire.OffsetType+1), wire.FlagAnswer)
	agenttest.MustFault(w, func(ctx context.Context) (agenttest.Effect, error) {
		return w.client.DropMatching(ctx, answer)
	})
}
