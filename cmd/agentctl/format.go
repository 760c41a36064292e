// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// short prints a time in three to six characters, as fine as people read it.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dus", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", float64(d.Truncate(100*time.Millisecond).Milliseconds())/1000)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// shortUnless prints a time that means nothing when it is 0.
func shortUnless(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return short(d)
}

// milliseconds is a time as JSON has it.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// oneLine is a message as one line that does not steer the terminal; a database
// or a file had a part in it.
func oneLine(s string) string { return cli.Printable(strings.Join(strings.Fields(s), " ")) }

// plural is "1 socket" or "2 sockets".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
