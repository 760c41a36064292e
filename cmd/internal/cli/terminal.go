// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether f is a terminal (TCGETS works on nothing else).
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// TerminalSize returns how many characters a line of the terminal has and how
// many lines there are; 0 and 0 when f is no terminal. One that does not know
// (a serial line) counts as 80 by 24.
func TerminalSize(f *os.File) (columns, lines int) {
	if !IsTerminal(f) {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}

// Printable keeps what came from elsewhere from steering the terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
