// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// openLinks starts to look at the links that lead to conmgrs. Without it only the
// silence of a timeout tells of a lost one.
func (s *server) openLinks() {
	links, err := linkhint.New(linkhint.Config{
		BPF: true, Log: s.log,
		OnPath: linkhint.Tell(s.loop, func() (time.Duration, bool) {
			c := s.config()
			return c.LinkDownGrace, c.LinkHints
		}),
	})
	if err != nil {
		s.log.Warn("links are not watched: a lost one is noticed at heartbeat_timeout", "err", err)
		return
	}
	s.links = links
	s.loop.SetLinks(links)
}

// watchLinks runs until ctx ends.
func (s *server) watchLinks(ctx context.Context) {
	if s.links == nil {
		return
	}
	if err := s.links.Run(ctx); err != nil {
		s.log.Warn("links are not watched any more: a lost one is noticed at heartbeat_timeout", "err", err)
	}
}
