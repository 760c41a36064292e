// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// openLinks starts to look at the links that lead to conmgrs, by all sources.
func (s *server) openLinks() {
	s.links = linkhint.Open(s.loop, true, func() (time.Duration, bool) {
		c := s.config()
		return c.LinkDownGrace, c.LinkHints
	}, s.log)
	s.loop.SetLinks(s.links)
}
