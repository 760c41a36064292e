// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
)

// KeepBusy keeps every processor busy at ordinary priority until ctx ends. Each
// endless loop has a session of its own, as each service of a machine has: where
// the kernel shares time out by session, the daemons must not pay for the loops.
func KeepBusy(ctx context.Context) error {
	for range runtime.NumCPU() {
		loop := exec.CommandContext(ctx, "/bin/sh", "-c", "while :; do :; done")
		loop.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
		if err := loop.Start(); err != nil {
			return err
		}
		go func() { _ = loop.Wait() }()
	}
	return nil
}
