// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// pause suspends kills; a pause that runs is replaced.
func (g *gate) pause(p Pause) {
	g.paused = &p
	g.order(func(now mono.Instant, out *Orders) { g.docket.Pause(now, p.end, out) })
}

// resume ends the pause, if there is one.
func (g *gate) resume(by string) {
	g.resumer = by
	g.order(func(now mono.Instant, out *Orders) { g.docket.Pause(now, 0, out) })
	g.resumer = ""
}

// restorePause goes on with the pause of the agent's last life.
func (g *gate) restorePause() {
	p := g.server.keeper.loadPause()
	if p == nil {
		return
	}
	now := g.server.loop.Now()
	left := p.left(g.server.keeper.bootID, now, time.Now())
	if left <= 0 {
		g.log.Info("the pause of kills ended while the agent was away", "by", p.By, "until", p.Until)
		g.server.keeper.savePause(nil, nil)
		return
	}
	p.bootID, p.end = g.server.keeper.bootID, now.Add(left)
	g.pause(*p)
}

// reportPause carries out, logs and keeps that kills are suspended, or allowed again.
func (g *gate) reportPause(e DocketEvent) {
	record := Event{Kind: e.Kind.String()}
	if e.Kind == DocketPaused {
		p := g.paused
		record.By, record.Reason, record.Until = p.By, p.Reason, p.Until.UTC()
		if p.restored {
			record.Evidence = "begun before a restart of the agent"
		}
		g.log.Warn(record.Kind, "for", e.Until.Sub(e.At).Round(time.Second), "by", p.By, "why", p.Reason, "evidence", record.Evidence)
	} else {
		g.paused = nil
		record.By = g.resumer
		if record.By == "" {
			record.Reason = "the pause is over"
		}
		g.log.Info(record.Kind, "by", record.By, "why", record.Reason)
		g.server.keeper.savePause(nil, nil)
	}
	g.server.monitor.SetPaused(g.paused != nil)
	g.server.keeper.record(record)
}
