// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

var updateExpected = flag.Bool("update-expected", false, "rewrite extension/expected")

// extended is a cluster that has the extension, with a run directory of its own, and
// in place of an agent the part of it that publishes.
type extended struct {
	*scratchCluster
	pub    *publisher
	runDir string
	rows   *[]SessionRow
}

// mustExtended makes the cluster. Nothing is published yet.
func mustExtended(t *testing.T, settings ...string) *extended {
	t.Helper()
	runDir := filepath.Join(mustOpenDir(t), "run")
	x := &extended{rows: new([]SessionRow), runDir: runDir, scratchCluster: scratchStartIn(t, agenttest.MustExtension(t, runDir), settings...)}
	x.pub = &publisher{dir: x.runDir, log: slog.New(slog.DiscardHandler), sessions: x.sessionRows, events: mustEvents(t, t.TempDir(), eventsMaxBytes)}
	return x
}

// mustOpenDir makes a directory that everybody can read.
func mustOpenDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(agenttest.ScratchDir(), "watchdog-ext-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (x *extended) sessionRows(_ context.Context, write func([]byte) error) (int, error) {
	for _, row := range *x.rows {
		if err := write(row.Append([]byte(",\n"))); err != nil {
			return 0, err
		}
	}
	return len(*x.rows), nil
}

// mustPublish tells of the cluster as it is now.
func (x *extended) mustPublish() {
	x.t.Helper()
	admin := x.mustAdmin()
	defer admin.Close(x.t.Context())
	start, err := strconv.ParseInt(admin.mustValue("SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8"), 10, 64)
	if err != nil {
		x.t.Fatal(err)
	}
	x.pub.setDirectory(admin.mustValue("SHOW data_directory"))
	x.pub.setInstance(start, "enabled")
	x.pub.changed.Store(true)
	x.pub.publish(x.t.Context())
	if x.pub.complaint != "" {
		x.t.Fatal(x.pub.complaint)
	}
}

// published is the path of what is told of a part.
func (x *extended) published(part string) string { return x.pub.path(x.pub.told, part) }

// mustFixture lays out what the scripts of extension/sql expect.
func (x *extended) mustFixture() {
	x.t.Helper()
	heard := time.Date(2026, 11, 25, 14, 0, 0, 123456000, time.UTC)
	*x.rows = []SessionRow{
		{Addr: netip.MustParseAddr("10.99.0.1"), Port: 40001, Interval: 10 * time.Second, Timeout: 20 * time.Second,
			State: wire.StateUp, Armed: heard.Add(-time.Hour), Heard: heard, RTT: 1500 * time.Microsecond,
			Received: 90, Lost: 10, Sent: 100, SentLost: 7, Session: 1 << 55, Conmgr: wire.ID{0xab, 0xcd}},
		{Addr: netip.MustParseAddr("fd99::1"), Port: 40002, Interval: 1001 * time.Millisecond, Timeout: 3 * time.Second,
			State: wire.StateLate, UDP: true, Keyed: true, Armed: heard, Heard: heard, Received: 3, Sent: 3, Session: 2},
		{Addr: netip.MustParseAddr("127.0.0.1"), Port: 40003, Interval: 50 * time.Millisecond, Timeout: 150 * time.Millisecond,
			State: wire.StateSuspect, Protected: true, Heard: heard, Session: 3},
	}
	for _, e := range []Event{
		{Kind: "waiting for comeback", Addr: netip.MustParseAddr("fe80::1%eth0"), Case: "disconnect", Reason: "disconnect"},
		{Time: heard.Add(2 * time.Second), Kind: "warrant", Addr: netip.MustParseAddr("10.99.0.1"), Conmgr: "abcd", Session: 7, Warrant: 5, Case: "timeout",
			Reason: "timeout", SilenceMS: 2000, LastValidAt: heard, VerdictAt: heard.Add(2 * time.Second), Outcome: "survivors",
			Evidence: `silent "since" C:\u00e9 then`, Backends: 3, Ended: 2, Newer: 1, Spared: 1, PIDs: []int32{4711, 4712, 4713},
			Survivors: []Survivor{{PID: 4711, User: "jürgen", Why: "superuser € 𝄞"}}, SurvivorsTotal: 1,
			SocketsDestroyed: 4, Sockets: "4 destroyed", StepsMS: map[string]float64{"read": 1.5}},
		{Kind: "warrant", Addr: netip.MustParseAddr("10.99.0.1"), Case: "timeout", Reason: "timeout", Outcome: "dry run", DryRun: true, Err: "nul \x00 and \n line"},
	} {
		if err := x.pub.events.Append(e); err != nil {
			x.t.Fatal(err)
		}
	}
	x.mustPublish()
}

// psql runs a script as pg_regress does.
func (x *extended) psql(database, script string) string {
	x.t.Helper()
	f, err := os.Open(script)
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(x.t.Context(), agenttest.Psql(x.bin), "-X", "-a", "-q", "-h", x.dir, "-p", strconv.Itoa(x.port), "-U", "postgres", "-d", database)
	cmd.Stdin = f
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		x.t.Fatalf("%s: %v\n%s", script, err, out.Bytes())
	}
	return out.String()
}

// in is the cluster for a subtest.
func (x *extended) in(t *testing.T) *extended {
	c := *x.scratchCluster
	c.t = t
	return &extended{scratchCluster: &c, pub: x.pub, runDir: x.runDir, rows: x.rows}
}

// TestExtension is about one instance, which takes most of its time to be made.
func TestExtension(t *testing.T) {
	x := mustExtended(t)
	for _, part := range []struct {
		name string
		test func(x *extended)
	}{
		{"files", (*extended).testFiles},
		{"scripts", (*extended).testScripts},
		{"encodings", (*extended).testEncodings},
		{"helper", (*extended).testHelper},
		{"terminate", (*extended).testTerminate},
		{"odd directory", (*extended).testOddDirectory},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(x.in(t)) })
	}
}

// testScripts runs the scripts of extension/sql, each in a database of its own, and
// compares what psql writes, as pg_regress does.
func (x *extended) testScripts() {
	scripts, err := filepath.Glob("extension/sql/*.sql")
	if err != nil || len(scripts) == 0 {
		x.t.Fatalf("scripts %v, %v", scripts, err)
	}
	admin := x.mustAdmin()
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sql")
		admin.mustExec("CREATE DATABASE " + name)
		x.mustPublish() // a sign of life
		got := x.psql(name, script)
		expected := filepath.Join("extension", "expected", name+".out")
		if *updateExpected {
			mustDo(x.t, os.WriteFile(expected, []byte(got), 0o644))
		}
		want, err := os.ReadFile(expected)
		mustDo(x.t, err)
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			x.t.Errorf("%s (-want +got):\n%s", expected, diff)
		}
	}
}
