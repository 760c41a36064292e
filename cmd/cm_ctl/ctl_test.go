// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

func mustMatch(t *testing.T, what, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(`(?s)` + pattern).MatchString(got) {
		t.Errorf("%s is\n%q\nwant\n%s", what, got, pattern)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	for _, tt := range []struct {
		args string
		want string
	}{
		{"", "no command: expected one of check, keygen, restart, start, status, stop"},
		{"begin", `unknown command "begin": expected one of`},
		{"start now", `too many arguments, the first is "now"`},
		{"start --fast", "unknown flag: --fast"},
		{"start -m fast", "start does not take the option --mode"},
		{"stop --json", "stop does not take the option --json"},
		{"check --id a", "check does not take the option --id"},
		{"keygen -m fast", "keygen does not take the option --mode"},
		{"keygen --id a/b", "option --id: key id: expected 1 to 16 characters"},
		{"keygen --id=", "option --id: key id: expected 1 to 16 characters"},
		{"keygen 10.0.0.0/8 db1", `client "db1": expected an address or a CIDR block`},
		{"check -t 5", "check does not take the option --timeout"},
		{"stop -m slow", `option -m: expected smart, fast or immediate, found "slow"`},
		{"status -i none", `option -i: expected all, instance or application, found "none"`},
		{"start -t 0", "option -t: 0 is out of range: expected 1ms to 2147483s"},
		{"start -t soon", `option -t: expected a time like`},
		{"start -W --complete", "options -W and --complete contradict each other"},
	} {
		_, stderr := w.must(t, cli.ExitUsage, strings.Fields(tt.args)...)
		if !strings.HasPrefix(stderr, "cm_ctl: error: "+tt.want) || !strings.HasSuffix(stderr, "Try \"cm_ctl --help\" for more information.\n") {
			t.Errorf("%q: stderr %q, want %s", tt.args, stderr, tt.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	for _, args := range []string{"help", "--help", "-?", "help start"} {
		if stdout, _ := w.must(t, cli.ExitOK, strings.Fields(args)...); stdout != usage {
			t.Errorf("%s: %q", args, stdout)
		}
	}
	if stdout, _ := w.must(t, cli.ExitOK, "--version"); stdout != cli.VersionLine("cm_ctl")+"\n" {
		t.Errorf("version %q", stdout)
	}
	for verb, v := range verbs {
		if !strings.Contains(usage, "cm_ctl "+verb) {
			t.Errorf("help says nothing about %s", verb)
		}
		for _, option := range v.options {
			if !strings.Contains(usage, "--"+option) {
				t.Errorf("help says nothing about --%s", option)
			}
		}
	}
}

func TestRootIsRefused(t *testing.T) {
	t.Parallel()
	var errs strings.Builder
	exit := run(env{args: []string{"status"}, stderr: &errs, getenv: func(string) string { return "" }})
	if exit != cli.ExitFailure || !strings.HasPrefix(errs.String(), `cm_ctl: error: "root" execution of cm_ctl is not permitted`) {
		t.Errorf("exit %d, %q", exit, errs.String())
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	_, stderr := w.must(t, cli.ExitFailure, "status", "-D", "/nonexistent")
	mustMatch(t, "stderr", stderr, "^cm_ctl: error: directory /nonexistent: no such file or directory\n$")
	w.dir = ""
	_, stderr = w.must(t, cli.ExitFailure, "status")
	mustMatch(t, "stderr", stderr, "^cm_ctl: error: no directory: expected -D or the environment variable CMDATA\n$")
}

// The whole life: start waits for the primary, a second start is refused, status
// shows everything, restart says so, stop waits until it is gone.
func TestLife(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	stdout, stderr := w.must(t, 0, "start")
	mustMatch(t, "stdout", stdout, `^waiting for conmgr to connect to the primary's watchdog\.{3,} done\nconmgr started \(PID: \d+\)\n$`)
	if stderr != "" {
		t.Errorf("stderr %q", stderr)
	}
	_, stderr = w.must(t, 1, "start")
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: another conmgr is running in .*/data \(PID: \d+\)\n$`)

	stdout, _ = w.must(t, 0, "status")
	mustMatch(t, "status", stdout, `^conmgr_status:\n`+
		`status  pid +started +version  instances  applications  link_hints\n`+
		`ready +\d+ +2026-11-22T10:00:00Z  0\.1\.0 +2 +1 +counter\n\n`+
		`instance_information:\n`+
		`addr +port  database_attr  number  host  status  monitoring .* why +kills\n`+
		`192\.0\.2\.1  5432  primary +0 +db1   up +monitored +up +f .*\n`+
		`192\.0\.2\.2  5432  standby +2 +- +up +unmonitored  down .* its agent stopped  -\n\n`+
		`application_information:\n`+
		`addr +port +pid +connected .*\n`+
		`127\.0\.0\.1  40000  4711  2026-11-22T10:00:01Z  7   console  1000 +primary  0 +db1   \?\[31mbound\n$`)

	stdout, stderr = w.must(t, 0, "restart", "-W")
	mustMatch(t, "restart", stdout, `^waiting for conmgr to shut down\.{3,} done\nconmgr is starting\n$`)
	if stderr != "" {
		t.Errorf("stderr %q", stderr)
	}
	mustEventually(t, func() bool { exit, _, _ := w.ctl("status"); return exit == 0 })

	stdout, _ = w.must(t, 0, "stop")
	mustMatch(t, "stop", stdout, `^waiting for conmgr to shut down\.{3,} done\nconmgr stopped\n$`)
	if want := "SHUTDOWN RESTART\nstopped by SHUTDOWN RESTART\nSHUTDOWN FAST\nstopped by SHUTDOWN FAST\n"; w.notes() != want {
		t.Errorf("conmgr noted %q, want %q", w.notes(), want)
	}
	stdout, _ = w.must(t, cli.ExitNotRunning, "status")
	mustMatch(t, "status", stdout, `^cm_ctl: no conmgr is running in .*: .*/conmgr.pid does not exist\n$`)
	_, stderr = w.must(t, 1, "stop")
	mustMatch(t, "stop", stderr, `^cm_ctl: error: no conmgr is running in `)
}

func TestStatusParts(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.must(t, 0, "start")
	stdout, _ := w.must(t, 0, "status", "-i", "instance")
	mustMatch(t, "instances", stdout, `^instance_information:\n[^:]*$`)
	stdout, _ = w.must(t, 0, "status", "-i", "application")
	mustMatch(t, "applications", stdout, `^application_information:\n`)
	if strings.Contains(stdout, "instance_information") {
		t.Errorf("-i application shows %q", stdout)
	}
	w.must(t, 0, "stop", "-m", "immediate")
}

func TestStatusJSON(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	stdout, _ := w.must(t, cli.ExitNotRunning, "status", "--json")
	if stdout != `{"conmgr_status":{"status":"not running"}}`+"\n" {
		t.Errorf("not running: %s", stdout)
	}
	w.must(t, 0, "start")
	stdout, _ = w.must(t, 0, "status", "--json")
	var got struct {
		Status       map[string]any   `json:"conmgr_status"`
		Instances    []map[string]any `json:"instance_information"`
		Applications []map[string]any `json:"application_information"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	delete(got.Status, "pid")
	if diff := cmp.Diff(map[string]any{
		"status": "ready", "started": "2026-11-22T10:00:00Z", "version": "0.1.0", "applications": 1.0, "instances": 2.0,
		"link_hints": "counter",
	}, got.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if len(got.Instances) != 2 || got.Instances[0]["port"] != 5432.0 || got.Instances[0]["read_only"] != false || got.Instances[0]["system_identifier"] != "7461" {
		t.Errorf("instances %v", got.Instances)
	}
	if len(got.Applications) != 1 || got.Applications[0]["id"] != 7.0 {
		t.Errorf("applications %v", got.Applications)
	}
	w.must(t, 0, "stop")
}

func TestStartComplete(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	stdout := w.startInVain(t, `^cm_ctl: error: not connected within \d+ms; conmgr keeps running and trying \(PID: \d+\)\n`+
		`  instance 0 \(db1 port 5432\): monitored, heartbeat up, primary\n`+
		`  instance 2 \(192\.0\.2\.2 port 5432\): unmonitored, heartbeat down, standby: its agent stopped\n$`, "--complete")
	mustMatch(t, "stdout", stdout, `^waiting for conmgr to connect to the watchdogs of all instances\.{4,} stopped waiting\n$`)
	w.must(t, 0, "status")
	w.must(t, 0, "stop")
}

func TestStartWithoutPrimary(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playUnready)
	w.startInVain(t, `instance 0 \(db1 port 5432\): unknown, heartbeat down, unknown: no route to host\n`)
	w.must(t, 0, "status")
}

func TestStartOfADeadConmgr(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playDie)
	log := filepath.Join(w.dir, "conmgr.log")
	if err := os.WriteFile(log, []byte("an older line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := w.must(t, 1, "start")
	mustMatch(t, "stdout", stdout, ` stopped waiting\n$`)
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: conmgr ended \(exit status 1\); these are the last lines of .*/conmgr.log\n`+
		`  FATAL:  could not bind 127\.0\.0\.1 port 27546: address already in use\?\[31m\n$`)
}

func TestStartThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playDeaf)
	w.startInVain(t, `conmgr keeps running and trying \(PID: \d+\)\n  it does not answer yet: connect to .*/conmgr.sock: no answer in time\n$`)
}

func TestStartFindsItsProgram(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.install(t, "conmgr (pgconmgr) 99.0")
	_, stderr := w.must(t, 1, "start")
	mustMatch(t, "stderr", stderr, `bin/conmgr is not of the same version as cm_ctl: expected "conmgr \(pgconmgr\) .*", found "conmgr \(pgconmgr\) 99\.0"\n$`)
	if err := os.Remove(filepath.Join(w.bin, "conmgr")); err != nil {
		t.Fatal(err)
	}
	_, stderr = w.must(t, 1, "start")
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: program conmgr is needed by cm_ctl, but is not in the same directory as .*/bin/cm_ctl\n$`)
}

// A restart with a broken configuration leaves the running conmgr alone.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.must(t, 0, "start")
	w.write(t, "data/conmgr.conf", "port = x\n")
	for _, verb := range []string{"restart", "check"} {
		_, stderr := w.must(t, 1, verb)
		mustMatch(t, verb, stderr, `^cm_ctl: error: .*/conmgr\.conf:1: port: expected a number from 1 to 65535, found "x"\n$`)
	}
	w.must(t, 0, "status")
	w.must(t, 0, "stop")
	w.must(t, 1, "start")
	if w.notes() != "SHUTDOWN FAST\nstopped by SHUTDOWN FAST\n" {
		t.Errorf("conmgr noted %q", w.notes())
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.write(t, "data/conmgr.conf", "backend_host0 = db1\nheartbeat_timeout = 1\n")
	stdout, stderr := w.must(t, 0, "check")
	mustMatch(t, "stdout", stdout, `^.*/conmgr\.conf is valid: 1 instances, 1 warnings\n$`)
	mustMatch(t, "stderr", stderr, `^cm_ctl: warning: .*/conmgr\.conf:2: heartbeat_timeout: `)
	w.write(t, "data/conmgr.conf", "backend_host0 = db1\nmax_connections = 2147483647\n")
	_, stderr = w.must(t, 1, "check")
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: file descriptors: 2147483722 needed `)
}

func TestStopFallsBackToSignals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mode, warning, note string }{
		{"fast", `^cm_ctl: warning: SHUTDOWN FAST: ERROR: not allowed \(SQLSTATE 42501\); sending signal SIGTERM\n$`, "stopped by terminated\n"},
		{"immediate", `sending signal SIGQUIT\n$`, "stopped by quit\n"},
	} {
		w := mustWorld(t, playRefuse)
		w.must(t, 0, "start")
		_, stderr := w.must(t, 0, "stop", "-m", tt.mode)
		mustMatch(t, "stderr", stderr, tt.warning)
		if !strings.HasSuffix(w.notes(), tt.note) {
			t.Errorf("conmgr noted %q, want %q at the end", w.notes(), tt.note)
		}
	}
	w := mustWorld(t, playRefuse)
	w.must(t, 0, "start")
	_, stderr := w.must(t, 1, "stop", "-m", "smart")
	mustMatch(t, "stderr", stderr, `SHUTDOWN SMART: ERROR: not allowed .*; only -m fast and -m immediate can do without\n$`)
}

// The socket file is gone: stop still works.
func TestStopWithoutSocket(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.must(t, 0, "start")
	if err := os.Remove(filepath.Join(w.dir, "conmgr.sock")); err != nil {
		t.Fatal(err)
	}
	_, stderr := w.must(t, 1, "status")
	mustMatch(t, "status", stderr, `^cm_ctl: error: conmgr is running and does not answer: connect to .*/conmgr\.sock: no such file or directory\n$`)
	_, stderr = w.must(t, 0, "stop")
	mustMatch(t, "stop", stderr, `conmgr\.sock: no such file or directory; sending signal SIGTERM\n$`)
}

// conmgr ends while it is asked: it is not running, and not silent.
func TestStatusOfAnEndingConmgr(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playVanish)
	w.must(t, 0, "start")
	stdout, _ := w.must(t, 3, "status")
	mustMatch(t, "status", stdout, `^cm_ctl: no conmgr is running in `)
}

func TestStopAnsweredByTheEnd(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playCut)
	w.must(t, 0, "start")
	_, stderr := w.must(t, 0, "stop")
	if stderr != "" || !strings.Contains(w.notes(), "stopped by SHUTDOWN FAST\n") {
		t.Errorf("stderr %q, noted %q", stderr, w.notes())
	}
}

func TestStopNotInTime(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playStubborn)
	w.must(t, 0, "start")
	stdout, stderr := w.must(t, 1, "stop", "-m", "smart", "-t", "100ms")
	mustMatch(t, "stdout", stdout, `^waiting for conmgr to shut down\.{4,} stopped waiting\n$`)
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: conmgr did not stop within 100ms \(PID: \d+\): it waits for its applications to leave; -m fast disconnects them\n$`)
	stdout, _ = w.must(t, 0, "stop", "-m", "smart", "-W")
	mustMatch(t, "stdout", stdout, `^conmgr is shutting down\n$`)
	w.must(t, 0, "stop")
}

func TestRestartOfNothingStarts(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	stdout, stderr := w.must(t, 0, "restart")
	mustMatch(t, "stderr", stderr, `^cm_ctl: warning: no conmgr is running in .*; starting it\n$`)
	mustMatch(t, "stdout", stdout, `conmgr started`)
	w.must(t, 0, "stop")
}

// A stale pid file is neither running nor in the way.
func TestStalePIDFile(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	w.write(t, "data/conmgr.pid", "1\n"+w.dir+"\n1\n1\nx:1\n")
	stdout, _ := w.must(t, cli.ExitNotRunning, "status")
	mustMatch(t, "status", stdout, `the process of .*/conmgr\.pid \(PID: 1\) has ended\n$`)
	w.must(t, 0, "start")
	w.must(t, 0, "stop")
}
