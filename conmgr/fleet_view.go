// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// View returns a fresh picture; the fleet keeps no reference to it.
func (f *Fleet) View(now mono.Instant) *View {
	f.viewed = now
	v := &View{At: now, Split: f.split.text, Instances: make([]InstanceView, len(f.members))}
	for i := range f.members {
		v.Instances[i] = f.members[i].view()
	}
	return v
}

func (m *member) view() InstanceView {
	return InstanceView{
		Number: m.Number, Host: m.Host, HostAddr: m.HostAddr, Addr: m.addr,
		Port: m.Port, WatchdogPort: m.WatchdogPort,
		Monitoring: m.mon, Heartbeat: m.session, Reason: m.reason, Instance: m.state,
		RTT: m.figures.RTT, Heard: m.figures.Heard, Lost: m.figures.Lost, Received: m.figures.Received,
		Loser: m.place != placeGood, Why: m.explain(), Since: m.since,
	}
}

func (m *member) explain() string {
	parts := []string{m.why}
	if m.place != placeGood && m.inUse() {
		parts = append(parts, m.lossText)
	}
	if m.trouble != "" && !heartbeat.Armed(m.session) {
		parts = append(parts, "its watchdog: "+m.trouble)
	}
	return strings.TrimPrefix(strings.Join(parts, "; "), "; ")
}
