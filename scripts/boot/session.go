// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// session is a psql that stays connected.
type session struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// mustSession connects from a machine; args are those of psql, with environment
// variables before them. Lines of its stderr come like any other.
func mustSession(t *testing.T, m *machine, args string, env ...string) *session {
	t.Helper()
	s := &session{cmd: m.command(t.Context(), "exec env "+strings.Join(env, " ")+" psql -X -A -t -q "+args+" 2>&1")}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	t.Cleanup(s.close)
	return s
}

// close ends the session, whatever it does; again, it does nothing. A machine that
// goes down waits in vain for one that is open: it stops all processes before it ends
// them, and nsenter stops itself then and never looks at what became of its psql.
func (s *session) close() {
	_ = s.in.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// send sends statements and waits for nothing.
func (s *session) send(t *testing.T, sql string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, sql); err != nil {
		t.Fatal(err)
	}
}

// ask sends statements that write one line, and returns it.
func (s *session) ask(t *testing.T, sql string) string {
	t.Helper()
	s.send(t, sql)
	return s.line(t)
}

// line waits for the next line.
func (s *session) line(t *testing.T) string {
	t.Helper()
	if !s.out.Scan() {
		t.Fatalf("psql ended (%v)", s.out.Err())
	}
	return s.out.Text()
}
