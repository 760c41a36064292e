// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"context"
	"log/slog"
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

// Whoever is on the path can answer a HELLO with any refusal that is not proven:
// one line a minute, and one for the first that is proven.
func TestUnprovenRefusalsAreNotToldEach(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, "backend_hostaddr0 = '192.0.2.1'\n")
	var text bytes.Buffer
	m, err := newMonitor(cfg, nil, wire.ID{1}, 1, 0, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = m.run(ctx) // only closes what newMonitor has opened
	})
	w := m.watches[0]
	for limit := range uint32(100) {
		w.Refused(w.session, wire.Refuse{Code: wire.CodeFull, Limit: limit}, false)
		w.Refused(w.session, wire.Refuse{Code: wire.CodeKey}, false)
	}
	if n := bytes.Count(text.Bytes(), []byte("\n")); n != 1 {
		t.Errorf("%d lines for 200 refusals that anybody can have sent: expected 1\n%s", n, text.String())
	}
	w.Refused(w.session, wire.Refuse{Code: wire.CodePerAddress, Limit: 8}, true)
	if n := bytes.Count(text.Bytes(), []byte("\n")); n != 2 || !strings.Contains(text.String(), "8 sessions") {
		t.Errorf("%d lines after one more that is proven: expected 2\n%s", n, text.String())
	}
}
