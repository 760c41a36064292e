// SPDX-License-Identifier: Apache-2.0

// Package cli is what the programs of pgconmgr share as programs: where and how
// messages are written, who may run them, their version. It is the only package
// that knows about terminals, the journal and syslog.
//
// Exit codes of all programs: 0 done, 1 failed, 2 wrong usage, 3 (status only)
// not running. agentctl has two more, which its help explains.
package cli

import (
	"errors"
	"fmt"
)

// Exit codes.
const (
	ExitOK         = 0
	ExitFailure    = 1
	ExitUsage      = 2
	ExitNotRunning = 3 // of a status command, as pg_ctl has it
)

// Version is the version of all programs of one build. The linker may set it
// (-ldflags "-X .../cmd/internal/cli.Version=1.2").
var Version = "0.1.0"

// VersionLine returns what --version prints, in PostgreSQL's form.
func VersionLine(program string) string { return program + " (pgconmgr) " + Version }

// CheckUser refuses what must not serve the network with more rights than it
// needs: root, and a process whose real and effective user differ.
func CheckUser(program string, uid, euid int) error {
	if euid == 0 {
		return fmt.Errorf("%q execution of %s is not permitted: start it as an unprivileged user, to prevent possible system security compromise", "root", program)
	}
	if uid != euid {
		return errors.New("real and effective user IDs must match")
	}
	return nil
}
