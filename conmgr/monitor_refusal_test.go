// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A timeout can be out of range at both ends: the bound that comes with the
// refusal tells which, and the operator reads the parameter to look at.
func TestRefusalNamesTheBound(t *testing.T) {
	t.Parallel()
	cfg := &Config{HeartbeatInterval: 50 * time.Millisecond, HeartbeatTimeout: 3 * time.Second}
	for _, tt := range []struct {
		refuse wire.Refuse
		want   []string
	}{
		{wire.Refuse{Code: wire.CodeInterval, Limit: 100}, []string{"heartbeat_interval is 50ms", "at least watchdog.min_heartbeat_interval = 100 ms"}},
		{wire.Refuse{Code: wire.CodeTimeout, Limit: 2000}, []string{"heartbeat_timeout is 3s", "at most watchdog.max_heartbeat_timeout = 2000 ms"}},
		{wire.Refuse{Code: wire.CodeTimeout, Limit: 5000}, []string{"heartbeat_timeout is 3s", "at least watchdog.min_heartbeat_interval = 5000 ms"}},
		{wire.Refuse{Code: wire.CodePerAddress, Limit: 8}, []string{"8 sessions"}},
	} {
		got := refusal(tt.refuse, cfg)
		for _, part := range tt.want {
			if !strings.Contains(got, part) {
				t.Errorf("%+v: %q: expected %q in it", tt.refuse, got, part)
			}
		}
	}
}
