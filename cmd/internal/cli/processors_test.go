// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"runtime"
	"testing"
)

func TestAddProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	t.Setenv("GOMAXPROCS", "1") // the administrator's
	AddProcessors(2)
	if now := runtime.GOMAXPROCS(0); now != before {
		t.Errorf("%d processors with GOMAXPROCS set, want %d", now, before)
	}
	t.Setenv("GOMAXPROCS", "")
	AddProcessors(2)
	if now := runtime.GOMAXPROCS(0); now != before+2 {
		t.Errorf("%d processors, want %d", now, before+2)
	}
}
