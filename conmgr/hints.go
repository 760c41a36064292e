// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// openLinks starts to look at the links that lead to watchdogs. Without it only
// the silence of a timeout tells of a lost one.
func (m *monitor) openLinks() {
	if !m.cfg.LinkHints {
		return
	}
	links, err := linkhint.New(linkhint.Config{
		Log:    m.log,
		OnPath: linkhint.Tell(m.loop, func() (time.Duration, bool) { return m.cfg.LinkDownGrace, true }),
	})
	if err != nil {
		m.log.Warn("links are not watched: a lost one is noticed at heartbeat_timeout", "err", err)
		return
	}
	m.links = links
	m.loop.SetLinks(links)
}

// watchLinks runs until ctx ends.
func (m *monitor) watchLinks(ctx context.Context) {
	if m.links == nil {
		return
	}
	if err := m.links.Run(ctx); err != nil {
		m.log.Warn("links are not watched any more: a lost one is noticed at heartbeat_timeout", "err", err)
	}
}

// hintSource names who tells of lost links.
func (m *monitor) hintSource() string {
	if m.links == nil {
		return "off"
	}
	return m.links.Source().String()
}
