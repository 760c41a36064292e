// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// psql runs statements of an unmodified psql and returns its output.
func psql(t *testing.T, host string, port uint16, database string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		agenttest.Skip(t, "psql")
	}
	cmd := exec.Command(path, append([]string{"-X", "-A", "-h", host, "-p", strconv.Itoa(int(port)), "-U", "app", "-d", database}, args...)...)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=5")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func TestPsql(t *testing.T) {
	f := mustServe(t, nil)
	for _, tt := range []struct {
		name, database, command, want string
	}{
		{"instances", "conmgr", "SHOW INSTANCES", "1|db1|192.0.2.1|5432|monitored|up|primary|up|off|"},
		{"status", "conmgr", "SHOW STATUS", "ready|42||1.2.3|1|2|counter"},
		{"applications", "conmgr", "SHOW APPLICATIONS", "|console|127.0.0.1|"},
		{"help", "conmgr", "SHOW HELP", "SHOW INSTANCES|"},
		{"target", "conmgr", "TARGET standby", "2|db2|192.0.2.2|5433|standby"},
		{"unknown", "conmgr", "FLY", `ERROR:  conmgr's console does not know "fly"`},
		{"shutdown", "conmgr", "SHUTDOWN FAST", "conmgr.sock only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := psql(t, "localhost", f.Port(), tt.database, "-c", tt.command)
			if !strings.Contains(got, tt.want) {
				t.Errorf("psql printed %q, want it to contain %q", got, tt.want)
			}
		})
	}
}
