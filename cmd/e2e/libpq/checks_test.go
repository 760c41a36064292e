// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The tests in C, under the sanitizers of addresses and undefined behaviour; all of
// them, with threads and valgrind too, are make test-libpq.
func TestC(t *testing.T) {
	t.Parallel()
	dir := needBuild(t)
	agenttest.NeedTool(t, "timeout")
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "make", "-C", source, "run", "BUILD="+dir+"/asan",
		"CPPFLAGS=-DMARK_PATIENCE=2000", "CFLAGS=-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all").CombinedOutput()
	if err != nil {
		t.Errorf("make run: %v\n%s", err, out)
	}
}
