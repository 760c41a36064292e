// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// What a program is doing when its connection breaks.
const (
	blocked = "blocked"
	idle    = "idle"
	intrans = "intrans"
)

var modes = []string{blocked, idle, intrans}

// states are what pg_stat_activity calls them.
var states = map[string]string{blocked: "active", idle: "idle", intrans: "idle in transaction"}

// kind is a program that can be run in each mode.
type kind struct {
	name string
	args func(w *world, mode string) []string
	// sessions is how many it has at the primary under its name.
	sessions int
	// first is written to its stdin at once, then in the modes but blocked what
	// makes it use its connection. No use: it notices by itself.
	first, use map[string]string
	linked     bool // with the library, which is not loaded before then
	exit       int
}

// line says "use it now" to our own programs.
var line = map[string]string{idle: "\n", intrans: "\n"}

// kinds are the programs that the library must serve.
func kinds() []kind {
	ours := func(name string) func(*world, string) []string {
		return func(w *world, mode string) []string { return []string{w.program(name), mode} }
	}
	script := func(interpreter, name string) func(*world, string) []string {
		return func(w *world, mode string) []string { return []string{interpreter, w.program(name), mode} }
	}
	return []kind{
		{name: "psql", args: psqlArgs, sessions: 1, exit: 2, first: map[string]string{intrans: "BEGIN;\n"},
			use: map[string]string{idle: "SELECT 1;\n", intrans: "SELECT 1;\n"}},
		{name: "pgbench", args: pgbenchArgs, sessions: 2, exit: 2},
		{name: "psycopg2", args: script("/usr/bin/python3", "psycopg2_app.py"), sessions: 1, use: line},
		{name: "DBD::Pg", args: script("/usr/bin/perl", "dbi_app.pl"), sessions: 1, use: line},
		{name: "blocking", args: ours("blocking"), sessions: 1, use: line},
		{name: "pollloop", args: ours("pollloop"), sessions: 1, linked: true},
		{name: "connectpoll", args: ours("connectpoll"), sessions: 1},
		{name: "ECPG", args: ours("embedded"), sessions: 1, use: line},
		{name: "forker", args: ours("forker"), sessions: 1, use: line},
		{name: "threads", args: ours("threads"), sessions: 8, use: line},
		{name: "bundled", args: ours("bundled"), sessions: 1, use: line},
	}
}

func psqlArgs(_ *world, mode string) []string {
	if mode == blocked {
		return []string{"psql", "-X", "-c", "SELECT pg_sleep(600)"}
	}
	return []string{"psql", "-X"}
}

// pgbenchArgs uses the connection again and again in the modes but blocked:
// pgbench does not look at one that sleeps.
func pgbenchArgs(w *world, mode string) []string {
	text := map[string]string{
		blocked: "SELECT pg_sleep(600);\n",
		idle:    "SELECT 1;\n\\sleep 20 ms\n",
		intrans: "BEGIN;\n" + strings.Repeat("SELECT 1;\n\\sleep 20 ms\n", 5000),
	}[mode]
	file := filepath.Join(w.dir, "pgbench-"+mode+".sql")
	w.must(os.WriteFile(file, []byte(text), 0o644))
	return []string{w.primary.Program("pgbench"), "-n", "-c", "2", "-T", "600", "-f", file}
}

// running is a program in one mode.
type running struct {
	kind
	mode string
	cmd  *agenttest.Cmd
	in   io.WriteCloser
	// broken gets the moment of the line that says so, and is closed when the
	// output has ended.
	broken chan mono.Instant
	// used is when it was told to use its connection.
	used mono.Instant

	mu   sync.Mutex // guards the following
	text []string
}

// id is its application_name.
func (r *running) id() string { return r.name + "-" + r.mode }

// says are the lines that tell of a broken connection.
var says = regexp.MustCompile(`^broken:|server closed the connection|no connection to the server|aborted`)

// start starts a program towards conmgr and does not wait for anything.
func (w *world) start(k kind, mode string) *running {
	w.Helper()
	return w.startIn(w.envAt(k.name+"-"+mode, "localhost", portConsole, !k.linked), k, mode)
}

func (w *world) startIn(env []string, k kind, mode string) *running {
	w.Helper()
	r := &running{kind: k, mode: mode, broken: make(chan mono.Instant, 1)}
	// Not with the test's context: cleaning up comes first.
	r.cmd = w.command(context.Background(), env, k.args(w, mode)...)
	out, in := r.pipes(w)
	r.in = in
	w.must(r.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		r.listen(out)
	}()
	w.Cleanup(func() {
		_ = r.cmd.Cancel()
		<-read
		_ = r.cmd.Wait()
		if w.Failed() {
			w.Logf("%s wrote:\n%s", r.id(), r.wrote())
		}
	})
	r.write(w, r.first[mode])
	return r
}

// pipes joins both outputs, and the input.
func (r *running) pipes(t testing.TB) (io.Reader, io.WriteCloser) {
	t.Helper()
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

func (r *running) write(t testing.TB, text string) {
	t.Helper()
	if text == "" {
		return
	}
	if _, err := io.WriteString(r.in, text); err != nil {
		t.Fatalf("%s: %v\n%s", r.id(), err, r.wrote())
	}
}

func (r *running) listen(out io.Reader) {
	told := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !told && says.MatchString(lines.Text()) {
			r.broken <- clock.Now()
			told = true
		}
		r.mu.Lock()
		r.text = append(r.text, lines.Text())
		r.mu.Unlock()
	}
	close(r.broken)
}

// wrote is what the program has written so far.
func (r *running) wrote() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.text, "\n")
}

// noticesItself reports whether it needs no use of its connection to notice.
func (r *running) noticesItself() bool { return r.use[r.mode] == "" }

// shownAs is how the primary shows a session in its mode. Those of pgbench go through
// all states; it begins to use them when all are connected.
func (r *running) shownAs() string {
	if r.name == "pgbench" {
		return "used"
	}
	return states[r.mode]
}

// awaitInMode waits until the primary shows every session of the programs in its
// mode.
func (w *world) awaitInMode(list []*running) {
	w.Helper()
	missing := ""
	ready := func() bool {
		count := map[string]int{}
		for _, row := range agenttest.MustQuery(w, w.primary, `SELECT application_name || '/' || what
			FROM pg_stat_activity, unnest(ARRAY[state, CASE WHEN query <> '' THEN 'used' END]) what
			WHERE backend_type = 'client backend' AND what IS NOT NULL`) {
			count[row]++
		}
		missing = ""
		for _, r := range list {
			select {
			case <-r.broken:
				w.Fatalf("%s has ended:\n%s", r.id(), r.wrote())
			default:
			}
			if count[r.id()+"/"+r.shownAs()] < r.sessions {
				missing += " " + r.id()
			}
		}
		return missing == ""
	}
	defer func() {
		if missing != "" {
			w.Logf("not in their mode:%s", missing)
		}
	}()
	agenttest.Eventually(w, generous, "all programs in their mode", ready)
}

// awaitEnd checks how a program ended.
func (r *running) awaitEnd(t testing.TB) {
	t.Helper()
	for range r.broken { // until its output ends
	}
	_ = r.in.Close()
	err := r.cmd.Wait()
	if code := r.cmd.ProcessState.ExitCode(); code != r.exit {
		t.Errorf("%s: exit code %d, want %d: %v\n%s", r.id(), code, r.exit, err, r.wrote())
	}
}

func (r *running) String() string { return fmt.Sprintf("%-11s %-7s", r.name, r.mode) }
