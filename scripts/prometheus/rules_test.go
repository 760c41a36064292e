// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

const rules = "pgconmgr.rules.yml"

func TestRules(t *testing.T) {
	agenttest.NeedTool(t, "promtool")
	for _, args := range []string{"check rules --lint-fatal " + rules, "test rules pgconmgr.rules_test.yml"} {
		out, err := exec.CommandContext(t.Context(), "promtool", strings.Fields(args)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
}

// The daemons' golden scrapes have every metric that an alert reads.
func TestRulesReadWhatIsServed(t *testing.T) {
	text := mustRead(t, rules)
	served := mustRead(t, "../../cmd/pgwatchdog/testdata/metrics.txt") + mustRead(t, "../../cmd/conmgr/testdata/metrics.txt")
	names := regexp.MustCompile(`\b(pgwatchdog|conmgr)_[a-z_]+`).FindAllString(text, -1)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 15 {
		t.Fatalf("metrics %q: want 15 or more", names)
	}
	for _, name := range names {
		if !strings.Contains(served, "\n# TYPE "+name+" ") {
			t.Errorf("no daemon serves %s", name)
		}
	}
}

// Each alert is proven to fire, and tells what to do.
func TestAlertsAreTested(t *testing.T) {
	text, tests := mustRead(t, rules), mustRead(t, "pgconmgr.rules_test.yml")
	alerts := strings.Split(text, "- alert: ")[1:]
	for _, alert := range alerts {
		name, body, _ := strings.Cut(alert, "\n")
		if !strings.Contains(tests, `{alertname="`+name+`"}`) {
			t.Errorf("%s: no test", name)
		}
		for _, want := range []string{"severity: ", "summary: ", "description: "} {
			if strings.Count(body, want) != 1 {
				t.Errorf("%s: %q is there %d times", name, want, strings.Count(body, want))
			}
		}
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
