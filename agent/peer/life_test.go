// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A conmgr is silent, its kernel acknowledges: a watchdog that is told of the end
// of the session can tell that the host lives, though the connection is closed.
func TestPassiveEndKnowsTheKernel(t *testing.T) {
	dogLoop, manLoop := startLoop(t), startLoop(t)
	var dog, man recorder
	_, addr := serve(t, dogLoop, &dog)
	dial(manLoop, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := dog.saw(wire.StateUp, wire.ReasonArmed); return ok })
	release := make(chan struct{})
	manLoop.Do(func() { <-release })
	defer close(release)
	eventually(t, "the verdict", func() bool { _, ok := dog.saw(wire.StateDown, wire.ReasonTimeout); return ok })
	dog.mu.Lock()
	defer dog.mu.Unlock()
	for i, c := range dog.changes {
		if c.Verdict() && !dog.lives[i].After(c.LastValid.Add(testInterval)) {
			t.Errorf("kernel heard at %d, last frame at %d: want an interval later or more", dog.lives[i], c.LastValid)
		}
	}
}
