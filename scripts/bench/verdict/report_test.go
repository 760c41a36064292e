// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

func at(ms int) mono.Instant { return mono.Instant(ms) * mono.Instant(time.Millisecond) }

func TestSummarize(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[len(hundred)-1-i] = time.Duration(i+1) * time.Millisecond
	}
	for _, tt := range []struct {
		name string
		all  []time.Duration
		want *summary
	}{
		{"none", nil, nil},
		{"one", []time.Duration{1234567}, &summary{1.23, 1.23, 1.23, 1.23}},
		{"two hundred", append(hundred, hundred...), &summary{1, 50, 99, 100}},
	} {
		if diff := cmp.Diff(tt.want, summarize(tt.all)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// What must not be believed is an error, what comes too early is counted.
func TestNote(t *testing.T) {
	t.Parallel()
	cut := agenttest.Effect{Before: at(1000), After: at(1010)}
	for _, tt := range []struct {
		name     string
		last, at mono.Instant
		early    int
		fails    string
	}{
		{"on time", at(990), at(1150), 0, ""},
		{"frame while the cut takes effect", at(1005), at(1156), 0, ""},
		{"before last frame plus timeout", at(990), at(1139), 1, ""},
		{"before the cut", at(840), at(999), 1, ""},
		{"never", at(990), 0, 0, "not within"},
		{"frame after the cut", at(1011), at(1170), 0, "last frame"},
		{"no frame", 0, at(1170), 0, "last frame"},
	} {
		r := &row{TimeoutMS: 150}
		err := r.note(tt.last, cut, tt.at)
		if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.fails)
		}
		if r.FalseVerdicts != tt.early {
			t.Errorf("%s: %d false verdicts, want %d", tt.name, r.FalseVerdicts, tt.early)
		}
	}
}

// The last line is one JSON object with the promised names.
func TestLastLine(t *testing.T) {
	t.Parallel()
	r := report{Facts: machine.Facts{Commit: "abc", Kernel: "6.1"}}
	a := r.add("50ms x 3, idle: fact", 150*time.Millisecond)
	a.late, a.afterCut = []time.Duration{6 * time.Millisecond}, []time.Duration{140 * time.Millisecond}
	r.add("nothing happened", 150*time.Millisecond).FalseVerdicts = 2
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "p99 beyond 5.0 ms") || r.falseVerdicts() != 2 {
		t.Errorf("%d false verdicts, table:\n%s", r.falseVerdicts(), out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	six := map[string]any{"min": 6.0, "p50": 6.0, "p99": 6.0, "max": 6.0}
	cut := map[string]any{"min": 140.0, "p50": 140.0, "p99": 140.0, "max": 140.0}
	want := map[string]any{
		"rows": []any{
			map[string]any{"case": "50ms x 3, idle: fact", "timeout_ms": 150.0, "n": 1.0, "late_ms": six, "after_cut_ms": cut, "false_verdicts": 0.0},
			map[string]any{"case": "nothing happened", "timeout_ms": 150.0, "n": 0.0, "false_verdicts": 2.0},
		},
		"commit": "abc", "kernel": "6.1", "cores": 0.0, "load_before": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	got, err := choose([]string{"50ms-busy", "cost"})
	if err != nil || len(got) != 2 || got[0].title() != "50ms x 3, busy" || got[0].timeout() != 150*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := choose([]string{"udp-50ms-busy"}); err != nil || !got[0].udp || got[0].title() != "50ms x 3, busy, UDP" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := choose([]string{"fast"}); err == nil {
		t.Error("an unknown trial was chosen")
	}
}
