// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// What happens to thousands of sessions at once is one line of who saw it, not one
// of each session; a verdict is told of each.
func TestSessionLines(t *testing.T) {
	loop, err := peer.NewLoop(nil)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := loop.Run(ended); err != nil { // gives its descriptors back; its time stands still
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change heartbeat.Change
		want   string // the level of the line; empty: debug
	}{
		{heartbeat.Change{From: wire.StateInit, To: wire.StateUp, Reason: wire.ReasonArmed}, "INFO"},
		{heartbeat.Change{From: wire.StateUp, To: wire.StateSuspect, Reason: wire.ReasonHint}, ""},
		{heartbeat.Change{From: wire.StateSuspect, To: wire.StateLate, Reason: wire.ReasonLinkUp}, ""},
		{heartbeat.Change{From: wire.StateSuspect, To: wire.StateSuspect, Reason: wire.ReasonFuse}, ""},
		{heartbeat.Change{From: wire.StateSuspect, To: wire.StateDown, Reason: wire.ReasonLinkDown}, "WARN"},
		{heartbeat.Change{From: wire.StateLate, To: wire.StateDown, Reason: wire.ReasonTimeout}, "WARN"},
	} {
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		g := &gate{log: log, server: &server{loop: loop}, hush: hush{log: log}}
		g.logChange(new(peer.Session), tt.change)
		if got := text.String(); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%v -> %v (%v): %q, want %q", tt.change.From, tt.change.To, tt.change.Reason, got, tt.want)
		}
	}
}
