// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// killObject is a socket and what became of it, in JSON.
type killObject struct {
	socketObject
	Result string  `json:"result"`
	Error  *string `json:"error"`
}

// maxReasons is how many sockets that are left are named with the reason.
const maxReasons = 10

// printResults tells what became of each socket that was shown, and returns the
// error that makes the exit code. Without outcomes nothing was tried.
func (o *killOptions) printResults(e *env, seen *look, outcomes []sockdiag.Outcome) error {
	if o.json {
		for i := range seen.rows {
			k := killObject{objectOf(seen.at, &seen.rows[i]), "dry run", nil}
			if outcomes != nil {
				k.Result = outcomes[i].Result.String()
				k.Error = reasonOf(outcomes[i])
			}
			if err := printJSON(e.stdout, k); err != nil {
				return err
			}
		}
		return verdictOf(outcomes)
	}
	var err error
	switch {
	case len(seen.rows) == 0:
		_, err = fmt.Fprintf(e.stdout, "no such socket of %v: nothing to do\n", o.peer)
	case outcomes == nil:
		_, err = fmt.Fprintf(e.stdout, "dry run: %s of %v would be destroyed\n", plural(len(seen.rows), "socket"), o.peer)
	default:
		_, err = fmt.Fprintln(e.stdout, countsOf(outcomes))
		printReasons(e, seen, outcomes)
	}
	if err != nil {
		return err
	}
	return verdictOf(outcomes)
}

func reasonOf(o sockdiag.Outcome) *string {
	if o.Err == nil {
		return nil
	}
	return new(o.Err.Error())
}

// countsOf is "2 destroyed, 1 gone already".
func countsOf(outcomes []sockdiag.Outcome) string {
	var parts []string
	for r := sockdiag.Skipped; r <= sockdiag.Failed; r++ {
		n := 0
		for _, o := range outcomes {
			if o.Result == r {
				n++
			}
		}
		switch {
		case n > 0 && r == sockdiag.Gone:
			parts = append(parts, fmt.Sprintf("%d gone already", n))
		case n > 0:
			parts = append(parts, fmt.Sprintf("%d %v", n, r))
		}
	}
	return strings.Join(parts, ", ")
}

// printReasons names sockets that are left, and why.
func printReasons(e *env, seen *look, outcomes []sockdiag.Outcome) {
	named := 0
	for i, o := range outcomes {
		if done(o) {
			continue
		}
		if named++; named > maxReasons {
			continue
		}
		reason := o.Result.String()
		if o.Err != nil {
			reason = o.Err.Error()
		}
		fmt.Fprintf(e.stderr, "%s: warning: %v: %s\n", program, seen.rows[i].Socket, reason)
	}
	if named > maxReasons {
		fmt.Fprintf(e.stderr, "%s: warning: and %d others\n", program, named-maxReasons)
	}
}

// done reports whether the socket is no more.
func done(o sockdiag.Outcome) bool {
	return o.Result == sockdiag.Destroyed || o.Result == sockdiag.Gone
}

// verdictOf makes the exit code of a kill: all, some or none.
func verdictOf(outcomes []sockdiag.Outcome) error {
	left := 0
	for _, o := range outcomes {
		if !done(o) {
			left++
		}
	}
	switch {
	case left == 0:
		return nil
	case left < len(outcomes):
		return &exitError{exitPartly, fmt.Errorf("%s of %d are not destroyed", plural(left, "socket"), len(outcomes))}
	}
	return &exitError{cli.ExitFailure, fmt.Errorf("%s: none destroyed%s", plural(left, "socket"), hint(outcomes))}
}

// hint says what to do when the right or the kernel's support is missing.
func hint(outcomes []sockdiag.Outcome) string {
	switch outcomes[0].Result {
	case sockdiag.NotPermitted:
		return ": CAP_NET_ADMIN is missing, run as root"
	case sockdiag.NotSupported:
		return ": this kernel is built without CONFIG_INET_DIAG_DESTROY"
	}
	return ""
}
