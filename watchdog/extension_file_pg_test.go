// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// noticing is a session that keeps what the server says beside its answers.
type noticing struct {
	*scratchSession
	mu   sync.Mutex // guards text
	text string
}

func (x *extended) mustNoticing(database, user string) *noticing {
	x.t.Helper()
	n := new(noticing)
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s", x.dir, x.port, user, database))
	if err != nil {
		x.t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.text += notice.Severity + ": " + notice.Message + " " + notice.Detail + " " + notice.Where + "\n"
	}
	conn, err := pgconn.ConnectConfig(x.t.Context(), config)
	if err != nil {
		x.t.Fatal(err)
	}
	n.scratchSession = x.session(conn)
	return n
}

// ask returns the value and what was said meanwhile.
func (n *noticing) ask(sql string) (value, notices string) {
	n.t.Helper()
	n.mu.Lock()
	n.text = ""
	n.mu.Unlock()
	value = n.mustValue(sql)
	n.mu.Lock()
	defer n.mu.Unlock()
	return value, n.text
}

const (
	countSessions = "SELECT count(*) FROM pgx_stat_watchdog"
	countEvents   = "SELECT count(*) FROM pgx_watchdog_events"
)

// testFiles: whatever lies where an agent should tell something, the views
// answer at once, with rows or with a NOTICE, and never with what is in other files.
func (x *extended) testFiles() {
	t := x.t
	admin := x.mustAdmin()
	admin.mustExec("CREATE EXTENSION watchdog; CREATE ROLE monitor LOGIN IN ROLE pg_monitor")
	monitor := x.mustNoticing("postgres", "monitor")
	expect := func(what, sql, rows, notice string) {
		t.Helper()
		got, said := monitor.ask(sql)
		if got != rows || (said == "") != (notice == "") || !strings.Contains(said, notice) {
			t.Errorf("%s: %s: %s rows, said %q; want %s, %q", what, sql, got, said, rows, notice)
		}
		if strings.Contains(said, "secret") {
			t.Errorf("%s: told what is in another file: %s", what, said)
		}
	}
	const (
		silent  = "pgwatchdog has told nothing for more than 5 seconds"
		damaged = "what pgwatchdog tells is damaged"
	)
	expect("no directory", countSessions, "0", silent)
	expect("no directory", countEvents, "0", silent)
	x.mustFixture()
	expect("fixture", countSessions, "3", "")
	expect("fixture", countEvents, "3", "")

	long := time.Now().Add(-7 * time.Second)
	mustDo(t, os.Chtimes(x.published("sessions"), long, long))
	expect("stale", countSessions, "0", silent)
	expect("stale", countEvents, "3", silent)
	x.pub.written = 0
	x.pub.publish(t.Context())
	expect("alive again", countSessions, "3", "")
	x.pub.withdraw(x.pub.last)
	expect("agent stopped", countSessions, "0", silent)
	expect("agent stopped", countEvents, "3", silent)
	x.mustPublish()
	mustDo(t, os.Remove(x.published("events")))
	expect("nothing to tell yet", countEvents, "0", "")

	secret := filepath.Join(x.dir, "data", "secret")
	mustDo(t, os.WriteFile(secret, []byte(`secret`), 0o600))
	mustDo(t, os.Chown(secret, int(x.user.Uid), int(x.user.Gid)))
	path := x.published("sessions")
	for name, plant := range map[string]func() error{
		"a link to another file": func() error { return os.Symlink(secret, path) },
		"a FIFO":                 func() error { return errors.Join(unix.Mkfifo(path, 0o600), os.Chmod(path, 0o666)) },
		"a directory":            func() error { return os.Mkdir(path, 0o755) },
		"nothing":                func() error { return os.WriteFile(path, nil, 0o644) },
		"half of it":             func() error { return os.WriteFile(path, []byte(`{"sessions":[{"secret`), 0o644) },
		"no text":                func() error { return os.WriteFile(path, []byte("secret \xff\x00"), 0o644) },
		"far too much": func() error {
			return errors.Join(os.WriteFile(path, []byte("secret"), 0o644), os.Truncate(path, 65<<20))
		},
	} {
		mustDo(t, os.RemoveAll(path))
		mustDo(t, plant())
		expect(name, countSessions, "0", damaged)
	}
	mustDo(t, os.RemoveAll(path))
	mustDo(t, os.WriteFile(path, []byte("secret"), 0o600))
	expect("a file of root", countSessions, "0", "Permission denied")
	mustDo(t, os.Chmod(path, 0o644))
	mustDo(t, os.Chmod(x.runDir, 0o700))
	expect("a closed directory", countSessions, "0", "Permission denied")
	mustDo(t, os.Chmod(x.runDir, 0o755))
	mustDo(t, os.Remove(path))

	x.mustPublish()
	x.pub.setInstance(x.pub.told.startUS-1, "enabled")
	x.pub.publish(t.Context())
	expect("another host's instance", countSessions, "0", "has not seen this start")
	x.mustPublish()
	expect("at the end", countSessions, "3", "")
	admin.mustExec("DROP OWNED BY monitor; DROP ROLE monitor; DROP EXTENSION watchdog")
}

// testEncodings: a database of any encoding shows the rows. What it has no
// characters for is a question mark.
func (x *extended) testEncodings() {
	admin := x.mustAdmin()
	const named = "SELECT survivor_list -> 0 ->> 'user' || ' ' || evidence FROM pgx_watchdog_events WHERE seq = 2"
	for encoding, want := range map[string]string{
		"UTF8":      `jürgen silent "since" C:\u00e9 then`,
		"LATIN1":    `j?rgen silent "since" C:\u00e9 then`,
		"SQL_ASCII": `j?rgen silent "since" C:\u00e9 then`,
		"EUC_JP":    `j?rgen silent "since" C:\u00e9 then`,
	} {
		name := "in_" + strings.ToLower(encoding)
		admin.mustExec("CREATE DATABASE " + name + " TEMPLATE template0 LOCALE 'C' ENCODING " + encoding)
		session := x.mustNoticing(name, "postgres")
		session.mustExec("CREATE EXTENSION watchdog")
		x.mustPublish()
		if got, said := session.ask(named); got != want || said != "" {
			x.t.Errorf("%s: %q, said %q; want %q", encoding, got, said, want)
		}
		if got, said := session.ask(countSessions); got != "3" || said != "" {
			x.t.Errorf("%s: %s sessions, said %q", encoding, got, said)
		}
	}
}

// testOddDirectory: the two make the same name of a data directory, whose
// name is bytes and not characters.
func (x *extended) testOddDirectory() {
	t := x.t
	odd := filepath.Join(x.dir, `dätä 'x'`)
	mustDo(t, os.Symlink(filepath.Join(x.dir, "data"), odd))
	x.run("pg_ctl", "-D", filepath.Join(x.dir, "data"), "-w", "-m", "immediate", "stop")
	x.run("pg_ctl", "-D", odd, "-w", "-l", filepath.Join(x.dir, "log"), "start")
	x.mustPublish()
	if x.pub.told.directory != odd {
		t.Fatalf("data_directory %q", x.pub.told.directory)
	}
	for _, database := range []string{"in_utf8", "in_latin1"} {
		session := x.mustNoticing(database, "postgres")
		if got, said := session.ask(countSessions); got != "3" || said != "" {
			t.Errorf("%s: %s rows, said %q", database, got, said)
		}
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
