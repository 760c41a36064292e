// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A flood of refused HELLOs is one line a minute for each cause, whatever
// addresses it comes from.
func TestRefusalsAreOneLineAMinute(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	r := refusals{log: slog.New(slog.NewTextHandler(&text, nil))}
	flood := func(from time.Duration) {
		for i := range 1000 {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			now := mono.Instant(from + time.Duration(i)*50*time.Millisecond)
			why, hint := refusalText(wire.CodeFull)
			r.note(now, addr, why, hint, 100)
			why, hint = turnedAwayText(key.ErrMissing)
			r.note(now, addr, why, hint, 0)
		}
	}
	flood(time.Hour)
	if n := strings.Count(text.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two causes in 50 s, want 2\n%s", n, text.String())
	}
	text.Reset()
	flood(time.Hour + time.Minute)
	if n := strings.Count(text.String(), "more_since_last=999"); n != 2 {
		t.Errorf("%d lines tell how many were left out, want 2\n%s", n, text.String())
	}
}
