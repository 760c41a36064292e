// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// TestVerbs plays with a lab as a user does, each verb a process of its own.
func TestVerbs(t *testing.T) {
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	binary := filepath.Join(t.TempDir(), "lab")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	name := fmt.Sprintf("test-%d", os.Getpid())
	lab := func(args ...string) (string, error) {
		out, err := exec.Command(binary, append([]string{"--name", name}, args...)...).CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() { _, _ = lab("down") })
	for _, tt := range []struct {
		args  string
		fails bool
		says  string
	}{
		{"status", true, "not up"},
		{"up --no-daemons", false, "db2: standby"},
		{"up", true, "is up already"},
		{"exec client ip -4 -brief address show eth0", false, "10.99.0.1/24"},
		{"cut db1", false, "took effect"},
		{"freeze db1", false, "took effect"},
		{"status", false, "CUT  FROZEN"},
		{"thaw db1", false, "took effect"},
		{"promote db2", false, "accepts writes"},
		{"bring-back db1", false, "db1 follows db2"},
		{"pause db1 postgres", false, "took effect"},
		{"status", false, "no answer"},
		{"resume db1 postgres", false, "took effect"},
		{"kill db1 nothing", true, `no process "nothing" on db1`},
		{"loss db1 10 200", true, "expected 0 to 100"},
		{"cut nowhere", true, "no host"},
		{"explode db1", true, "unknown verb"},
		{"down", false, "is gone"},
		{"down", true, "not up"},
	} {
		out, err := lab(strings.Fields(tt.args)...)
		if (err != nil) != tt.fails || !strings.Contains(out, tt.says) {
			t.Fatalf("lab %s: %v, want failure %t and %q in:\n%s", tt.args, err, tt.fails, tt.says, out)
		}
	}
}
