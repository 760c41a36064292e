// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// mustTerminal makes a terminal of so many columns: the user's side and the
// program's.
func mustTerminal(t *testing.T, columns uint16) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	n, err1 := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	err2 := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	err3 := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return user, program
}

// onTerminal runs the real program on a host's terminal, and types the answer
// when it has asked.
func onTerminal(t *testing.T, h *agenttest.Host, columns uint16, answer string, args ...string) (exit int, shown string) {
	t.Helper()
	path, err := h.Lab().Binary(t.Context(), "agentctl")
	if err != nil {
		t.Fatal(err)
	}
	user, program := mustTerminal(t, columns)
	cmd := h.Command(t.Context(), path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := new(buffer)
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, user) // until the program's side is closed
		close(read)
	}()
	if answer != "" {
		agenttest.Eventually(t, limit, "a question", func() bool { return strings.HasSuffix(out.String(), "? [y/N] ") })
		if _, err := user.WriteString(answer); err != nil {
			t.Fatal(err)
		}
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &failed) {
		exit = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	_ = program.Close()
	<-read
	return exit, strings.ReplaceAll(out.String(), "\r\n", "\n")
}

// The real program on real terminals: it fits them, asks, and takes no for an
// answer.
func TestTerminal(t *testing.T) {
	b := mustBattlefield(t)
	widest := 0
	for _, columns := range []uint16{80, 200} {
		exit, shown := onTerminal(t, b.db, columns, "", "sockets")
		if exit != 0 || strings.Count(shown, "\nESTAB") != 15 || !strings.Contains(shown, "\n15 sockets") {
			t.Errorf("%d columns: exit %d\n%s", columns, exit, shown)
		}
		checkWidth(t, fmt.Sprint(columns), shown, int(columns))
		heading, _, _ := strings.Cut(shown, "\n")
		widest = max(widest, utf8.RuneCountInString(heading))
		if whole := columns == 200; strings.Contains(heading, "  rto  ") != whole || strings.Contains(shown, "no room for") == whole {
			t.Errorf("%d columns: heading %q", columns, heading)
		}
	}
	if widest <= 80 {
		t.Errorf("200 columns are not used: %d", widest)
	}
	exit, shown := onTerminal(t, b.db, 80, "n\n", b.args()...)
	if exit != exitRefused || !strings.Contains(shown, "Destroy 3 sockets of 10.99.0.1? [y/N] ") || !strings.HasSuffix(shown, "not confirmed: nothing was done\n") {
		t.Errorf("no: exit %d\n%s", exit, shown)
	}
	b.mustAll(t, false)
	if exit, shown = onTerminal(t, b.db, 80, "y\n", b.args()...); exit != 0 || !strings.HasSuffix(shown, "4 destroyed\n") {
		t.Errorf("yes: exit %d\n%s", exit, shown)
	}
	b.mustAll(t, true)
}
