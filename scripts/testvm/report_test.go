// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// figures are those of all kernels: i milliseconds in the i-th round, ten times as
// many on the first kernel.
func figures(rounds int) string {
	var b strings.Builder
	for k, r := range vm.Releases {
		for _, situation := range situations {
			for _, source := range sources {
				for i := range rounds {
					ms := float64(i+1) * []float64{10, 1}[min(k, 1)]
					fmt.Fprintf(&b, `{"kernel":%q,"situation":%q,"source":%q,"told":%t,"ms":%v}`+"\n",
						r.Series, situation.name, source, !situation.silent, ms)
				}
			}
		}
	}
	return b.String()
}

func TestReport(t *testing.T) {
	var out strings.Builder
	if err := run(strings.NewReader(figures(5)), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Linux 6.1, 5 times", "  loss inside the throttle       30.0 / 50.0 ", "Linux 6.12, 5 times",
		"  first loss                     3.0 / 5.0 ", "  namespace of another           nothing is told   nothing is told",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last map[string]map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("the last line: %v\n%s", err, out.String())
	}
	// 1 2 3 4 5 10 20 30 40 50
	if got := last["throttled"]["fentry_ms"]; got != 7.5 {
		t.Errorf("median over all kernels %v, want 7.5", got)
	}
	if got := last["foreign"]["kprobe_told"]; got != 0.0 {
		t.Errorf("told %v of another namespace, want 0", got)
	}
	first, ok := last["kernels"]["6.1"].(map[string]any)["admin_down"].(map[string]any)
	if !ok || first["rtnetlink_ms"] != 30.0 || first["rtnetlink_worst_ms"] != 50.0 {
		t.Errorf("of Linux 6.1: %v", first)
	}
}

// A report without a figure is a failure that says which, and so is one that must
// not be.
func TestReportFails(t *testing.T) {
	whole := figures(1)
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "kernel 6.1, first loss, fentry: not measured"},
		{"no figure", "boom\n", "is no figure"},
		{"told of another's", whole + `{"kernel":"6.12","situation":"foreign","source":"kprobe","told":true,"ms":1}`,
			"kernel 6.12, namespace of another, kprobe: 1 of 2 told"},
		{"not told", strings.Replace(whole, `"told":true`, `"told":false`, 1), "kernel 6.1, first loss, fentry: nothing is told"},
	} {
		err := run(strings.NewReader(tt.in), new(strings.Builder))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
