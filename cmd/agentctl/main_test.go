// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

var update = flag.Bool("update", false, "rewrite testdata")

// noon is when the tests' users look.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.FixedZone("CET", 3600))

// buffer is written by the program and read by the test, at the same time.
type buffer struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// session is one use of the program, in this process.
type session struct {
	env
	out, errs *buffer
}

// newSession is a user on a terminal of so many columns; 0 is a pipe. Somebody is
// there to answer when there is an answer.
func newSession(columns int, answer string) *session {
	s := &session{out: new(buffer), errs: new(buffer)}
	s.env = env{
		stdin: strings.NewReader(answer), stdout: s.out, stderr: s.errs, asks: answer != "",
		size: func() (int, int) { return columns, min(columns, 24) },
		now:  func() time.Time { return noon }, tick: 2 * time.Millisecond, kernel: thisKernel(),
		ask: nobody, states: func() []string { return nil },
	}
	return s
}

// nobody is what a host without pgwatchdog answers.
func nobody(context.Context, string, control.Question) (*control.Reply, error) {
	return nil, fs.ErrNotExist
}

func (s *session) run(ctx context.Context, args ...string) int {
	s.args = args
	return run(ctx, &s.env)
}

// mustRun runs the program and checks its exit code.
func mustRun(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	s := newSession(0, "")
	if exit := s.run(t.Context(), args...); exit != want {
		t.Fatalf("%s: exit %d, want %d\nstdout %s\nstderr %s", strings.Join(args, " "), exit, want, s.out, s.errs)
	}
	return s.out.String(), s.errs.String()
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	general, _ := mustRun(t, 0, "help")
	for _, args := range []string{"--help", "-?", "-h"} {
		if got, _ := mustRun(t, 0, args); got != general {
			t.Errorf("%s: %q", args, got)
		}
	}
	for _, v := range verbs {
		if !strings.Contains(general, "agentctl "+v.name) {
			t.Errorf("help says nothing about %s", v.name)
		}
		words := strings.Fields(v.name)
		for _, args := range [][]string{append([]string{"help"}, words...), append(words, "--help"), append(words, "--nonsense", "-?")} {
			if got, _ := mustRun(t, 0, args...); got != v.usage {
				t.Errorf("%q: %q", args, got)
			}
		}
		for i, line := range strings.Split(general+v.usage, "\n") {
			if len(line) > 80 {
				t.Errorf("help of %s, line %d is %d characters long: %s", v.name, i+1, len(line), line)
			}
		}
	}
	if got, _ := mustRun(t, 0, "--version"); got != cli.VersionLine("agentctl")+"\n" {
		t.Errorf("version %q", got)
	}
}

// Every option has its line in the help of its command.
func TestHelpHasEveryOption(t *testing.T) {
	t.Parallel()
	for _, v := range verbs {
		flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
		// An unknown option ends each command before it does anything.
		if err := v.run(t.Context(), &newSession(0, "").env, flags, []string{"--nonsense"}); err == nil {
			t.Errorf("%s took --nonsense", v.name)
		}
		n := 0
		flags.VisitAll(func(f *pflag.Flag) {
			n++
			if !strings.Contains(v.usage, "--"+f.Name) {
				t.Errorf("help of %s says nothing about --%s", v.name, f.Name)
			}
		})
		if n < 5 {
			t.Errorf("%s has %d options", v.name, n)
		}
	}
}

// Each mistake gives one line that says what was expected, and exit code 2.
func TestUsage(t *testing.T) {
	t.Parallel()
	const kill1 = "sockets kill --peer 10.1.2.3 --port 1 "
	for _, tt := range []struct{ args, want string }{
		{"", "no command: expected sockets, sockets kill, sessions, events, pause, hints, doctor or help"},
		{"socket", `unknown command "socket": expected sockets, sockets kill, sessions, events, pause, hints, doctor or help`},
		{"--json sockets", "option --json stands before the command: expected sockets, "},
		{"help socket", `unknown command "socket": expected`},
		{"help sockets --json", "help sockets --json: expected sockets"},
		{"sockets kil", `unknown command "sockets kil": expected sockets, sockets kill`},
		{"sockets --json 5432", `unexpected argument "5432": expected options only`},
		{"sockets --watch 5s", `unexpected argument "5s": expected options only`},
		{"sockets --ports 5432", "unknown flag: --ports"},
		{"sockets --json=maybe", `--json "maybe": expected true or false`},
		{"sockets --peer", "flag needs an argument: --peer"},
		{"sockets --peer db1", `--peer "db1": expected an address or a prefix, as 10.1.2.3 or 10.1.0.0/16`},
		{"sockets --peer=", `--peer "": expected an address or a prefix`},
		{"sockets --peer 10.1.2.0/33", `--peer "10.1.2.0/33": expected an address or a prefix`},
		{"sockets --peer 0.0.0.0", `--peer "0.0.0.0": expected an address or a prefix`},
		{"sockets --peer fe80::1%nonsense", `--peer: bad filter: peer fe80::1: zone "nonsense": expected an interface's name or index`},
		{"sockets --peer fe80::1%1 --peer fe80::2%2", "--peer: zones of two interfaces: expected one"},
		{"sockets --local ::", `--local "::": expected the address of a connection, as 10.1.2.3`},
		{"sockets --local 10.1.2.0/24", `--local "10.1.2.0/24": expected the address of a connection`},
		{"sockets --port 0", `--port "0": expected a port from 1 to 65535, or two with a dash, as 5432-5440`},
		{"sockets --port 65536", `--port "65536": expected a port`},
		{"sockets --port 9-8", `--port "9-8": expected a port`},
		{"sockets --port 9-", `--port "9-": expected a port`},
		{"sockets --port postgres", `--port "postgres": expected a port`},
		{"sockets --state open", `--state "open": expected all or states as established, close-wait`},
		{"sockets --state=established,", `--state "": expected all or states`},
		{"sockets --watch=0", "--watch: 0 is out of range: expected 100ms to 1d"},
		{"sockets --watch=often", "--watch: expected a time like 250ms, 2s or 1min, found"},
		{"sockets --netns=", `--netns "": expected a name in /run/netns or a path`},
		{"sockets --dsn port=x", "--dsn: cannot parse `port=x`"},
		{"sockets kill", "0 options --peer: expected exactly one"},
		{"sockets kill --peer 10.1.2.3 --peer 10.1.2.4 --port 1", "2 options --peer: expected exactly one"},
		{"sockets kill --peer 10.1.2.3", "no port: expected --port=PORT, or --all-ports for every port of this host"},
		{kill1 + "--all-ports", "options --port and --all-ports contradict each other: expected one of them"},
		{"sockets kill --peer 10.1.2.0/24 --port 1", `--peer "10.1.2.0/24": expected one address, as 10.1.2.3`},
		{"sockets kill --peer 0.0.0.0 --port 1", `--peer "0.0.0.0": expected one address`},
		{"sockets kill --peer fe80::1 --port 1", `--peer "fe80::1": expected an interface with a link-local address, as fe80::1%eth0`},
		{kill1 + "--state all", "unknown flag: --state"},
		{kill1 + "--watch", "unknown flag: --watch"},
		{kill1 + "now", `unexpected argument "now": expected options only`},
		{"events --pid 0", `--pid "0": expected the number of a process`},
		{"events --pid me", `--pid "me": expected the number of a process`},
		{"events --since noon", `--since "noon": expected a time as 30min, 2h, 1d, "2026-11-25 14:00" or 2026-11-25T14:00:00Z`},
		{"events --since -1h", `--since "-1h": expected a time`},
		{"events --peer fe80::1%1", `--peer "fe80::1%1": expected an address without an interface`},
		{"events --json --expanded", "options --expanded and --json contradict each other: expected one of them"},
		{"doctor --dsn port=x", "--dsn: cannot parse `port=x`"},
		{"doctor --key-file=", `--key-file "": expected a name`},
		{"doctor --netns=", `--netns "": expected a name`},
		{"hints --count 0", "--count 0: expected at least 1"},
		{"hints --peer db1", `--peer "db1": expected an IP address`},
		{"hints --without rtnetlink", `--without "rtnetlink": expected fentry, kprobe or counter`},
		{"hints now", `unknown command "hints now"`},
		{"doctor me", `unknown command "doctor me"`},
		{"sessions me", `unknown command "sessions me"`},
		{"sessions --state armed", `--state "armed": expected init, up, late, suspect, down`},
		{"sessions --state=up,", `--state "": expected init, up, late, suspect, down`},
		{"sessions --peer db1", `--peer "db1": expected an address or a prefix`},
		{"sessions --watch=0", "--watch: 0 is out of range: expected 100ms to 1d"},
		{"pause 30", `pause of "30": expected a time with its unit, as 90s, 30m or 2h`},
		{"pause soon", `pause of "soon": expected a time like`},
		{"pause 25h", `pause of "25h": 25h is out of range: expected 1s to 1d`},
		{"pause 0s", `pause of "0s": 0s is out of range: expected 1s to 1d`},
		{"pause -5m", "unknown shorthand flag: '5' in -5m"},
		{"pause 5m 6m", `unexpected argument "6m": expected one duration`},
		{"pause 5m --resume", "a duration and --reason go with a new pause"},
		{"pause --status --reason x", "a duration and --reason go with a new pause"},
		{"pause --status --resume", "options --resume and --status contradict each other"},
		{"pause --reason=" + strings.Repeat("x", 201), "--reason: a text of 201 bytes: expected at most 200"},
		{"pause --reason=\x1b", "--reason: control characters in a text"},
	} {
		stdout, stderr := mustRun(t, cli.ExitUsage, strings.Fields(tt.args)...)
		lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
		if !strings.HasPrefix(stderr, "agentctl: error: "+tt.want) || len(lines) != 2 ||
			!strings.HasPrefix(lines[1], `Try "agentctl`) || !strings.HasSuffix(lines[1], `--help" for more information.`) {
			t.Errorf("%q: stderr %q, want %s", tt.args, stderr, tt.want)
		}
		if stdout != "" {
			t.Errorf("%q: stdout %q", tt.args, stdout)
		}
	}
}
