// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// openLinks starts to look at the links that lead to watchdogs, by the sources that
// need no right.
func (m *monitor) openLinks() {
	if !m.cfg.LinkHints {
		return
	}
	m.links = linkhint.Open(m.loop, false, func() (time.Duration, bool) { return m.cfg.LinkDownGrace, true }, m.log)
	m.loop.SetLinks(m.links)
}

// hintSource names who tells of lost links.
func (m *monitor) hintSource() string {
	if m.links == nil {
		return "off"
	}
	return m.links.Source()
}
