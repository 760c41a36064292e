// SPDX-License-Identifier: Apache-2.0

package drivers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// roleEnv makes this test's binary one of the programs.
const roleEnv = "CM_TEST_DRIVER"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "pgx":
		playAll(os.Args[1:], playPgx)
	case "psql":
		playAll(os.Args[1:], playPsql)
	default:
		fmt.Fprintln(os.Stderr, "unknown driver", role)
		os.Exit(2)
	}
}

// program is one driver's program.
type program struct {
	name string
	args []string // of the program, before the cases
	env  []string
}

// mustPrograms returns the programs of all drivers, and skips or fails the test
// when one is not installed.
func mustPrograms(t *testing.T) []program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agenttest.NeedTool(t, "psql")
	return []program{
		{"pgx", []string{self}, []string{roleEnv + "=pgx"}},
		{"psql", []string{self}, []string{roleEnv + "=psql"}},
		mustPython(t), mustJava(t), mustNode(t),
	}
}

// mustPython finds Debian's module: another python3 in PATH has none.
func mustPython(t *testing.T) program {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), python, "-c", "import psycopg2").Run(); err != nil {
		agenttest.Skip(t, "psycopg2 for "+python+" (make install-deps)")
	}
	return program{"psycopg2", []string{python, script("with_psycopg2.py")}, nil}
}

func script(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		panic("drivers: " + err.Error())
	}
	return path
}

func mustJava(t *testing.T) program {
	t.Helper()
	const jar = "/usr/share/java/postgresql.jar"
	if _, err := os.Stat(jar); err != nil {
		agenttest.Skip(t, "pgjdbc in "+jar+" (make install-deps)")
	}
	agenttest.NeedTool(t, "java")
	agenttest.NeedTool(t, "javac")
	classes := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "javac", "-nowarn", "-d", classes, script("Pgjdbc.java")).CombinedOutput()
	if err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return program{"pgjdbc", []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes + ":" + jar, "Pgjdbc"}, nil}
}

func mustNode(t *testing.T) program {
	t.Helper()
	agenttest.NeedTool(t, "node")
	root, err := agenttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(root, ".cache", "node", "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "pg", "package.json")); err != nil {
		agenttest.Skip(t, "node-postgres in "+modules+" (make install-deps)")
	}
	return program{"node-postgres", []string{"node", script("node-postgres.js")}, []string{"NODE_PATH=" + modules}}
}

// event is one line of a program.
type event struct {
	program, name, what, detail string
	at                          mono.Instant // when the test read it
}

func (e event) String() string {
	return fmt.Sprintf("%s/%s: %s %s", e.program, e.name, e.what, e.detail)
}

// running is a program that was started.
type running struct {
	program
	cmd    *agenttest.Cmd
	stderr bytes.Buffer
}

// mustRun starts a program with cases on a host; its lines go to events.
func (p program) mustRun(t *testing.T, h *agenttest.Host, env, cases []string, events chan<- event) *running {
	t.Helper()
	r := &running{program: p}
	r.cmd = h.Command(context.WithoutCancel(t.Context()), p.args[0], append(p.args[1:], cases...)...)
	r.cmd.Env = append(append(os.Environ(), p.env...), env...)
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.listen(out, events)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Cancel()
		<-read
		_ = r.cmd.Wait()
		if t.Failed() && r.stderr.Len() > 0 {
			t.Logf("%s wrote:\n%s", p.name, r.stderr.String())
		}
	})
	return r
}

func (p program) listen(out io.Reader, events chan<- event) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), "\t", 3)
		if len(fields) < 3 {
			fields = []string{"", "failed", "it wrote " + lines.Text()}
		}
		events <- event{p.name, fields[0], fields[1], fields[2], clock.Now()}
	}
}
