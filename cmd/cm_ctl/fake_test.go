// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// TestMain lets the test binary be a conmgr that plays a script.
func TestMain(m *testing.M) {
	if os.Getenv("CM_CTL_FAKE") != "" {
		os.Exit(fakeConmgr(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// The scripts a fake conmgr plays, from the file "script" in its directory.
const (
	playGood     = "good"     // two looks until the primary is monitored; obeys
	playDie      = "die"      // writes why and exits 1
	playUnready  = "unready"  // never finds a primary
	playDeaf     = "deaf"     // listens and never answers; obeys signals
	playStubborn = "stubborn" // accepts SHUTDOWN SMART and stays
	playRefuse   = "refuse"   // answers SHUTDOWN with an error; obeys signals
	playCut      = "cut"      // closes the connection instead of answering SHUTDOWN, and ends
	playVanish   = "vanish"   // the same with SHOW APPLICATIONS
)

func fakeConmgr(args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Println(os.Getenv("CM_CTL_FAKE_VERSION"))
		return 0
	}
	if len(args) != 2 || args[0] != "-D" {
		fmt.Fprintf(os.Stderr, "unexpected arguments %q\n", args)
		return 2
	}
	d, err := conmgr.OpenDirectory(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	script, _ := d.ReadFile("script", 100)
	if string(script) == playDie {
		fmt.Fprintln(os.Stderr, "FATAL:  could not bind 127.0.0.1 port 27546: address already in use\x1b[31m")
		return 1
	}
	if err := d.Claim(27546, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f := &fake{d: d, script: string(script), stopped: make(chan string, 8)}
	if err := f.listen(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f.note("stopped by " + <-f.stopped)
	_ = d.Release()
	return 0
}

type fake struct {
	d       *conmgr.Directory
	script  string
	looks   atomic.Int32 // SHOW INSTANCES so far
	stopped chan string
}

// note leaves a line for the test to find.
func (f *fake) note(line string) {
	file, err := os.OpenFile(filepath.Join(f.d.Path(), "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer file.Close()
	fmt.Fprintln(file, line)
}

func (f *fake) listen() error {
	_ = os.Remove(f.d.SocketPath())
	l, err := net.Listen("unix", f.d.SocketPath())
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT)
	go func() { f.stopped <- (<-signals).String() }()
	go f.accept(l)
	return nil
}

func (f *fake) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if f.script == playDeaf {
			continue // the connection stays open and nobody reads it
		}
		go f.serve(c)
	}
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	b := pgproto3.NewBackend(c, c)
	m, err := b.ReceiveStartupMessage()
	startup, ok := m.(*pgproto3.StartupMessage)
	if err != nil || !ok || startup.Parameters["database"] != "conmgr" {
		f.note(fmt.Sprintf("bad startup: %v %v", m, err))
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for b.Flush() == nil {
		m, err := b.Receive()
		q, ok := m.(*pgproto3.Query)
		if err != nil || !ok || !f.answer(b, q.String) {
			return
		}
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
}

// answer plays one command; false closes the connection.
func (f *fake) answer(b *pgproto3.Backend, command string) bool {
	switch {
	case command == "SHOW STATUS":
		sendTable(b, "status,pid:20,started,version,applications:20,instances:20,link_hints",
			fmt.Sprintf("ready,%d,2026-11-22T10:00:00Z,0.1.0,1,2,counter", os.Getpid()))
	case command == "SHOW INSTANCES":
		f.looks.Add(1)
		sendTable(b, instanceColumns, f.instances()...)
	case command == "SHOW APPLICATIONS" && f.script == playVanish:
		f.stopped <- command
		return false
	case command == "SHOW APPLICATIONS":
		sendTable(b, "id:20,kind,addr,port:20,pid:20,uid:20,target,instance:20,host,connected,state",
			"7,console,127.0.0.1,40000,4711,1000,primary,0,db1,2026-11-22T10:00:01Z,\x1b[31mbound")
	case strings.HasPrefix(command, "SHUTDOWN "):
		f.note(command)
		return f.shutdown(b, command)
	default:
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601", Message: "unknown command"})
	}
	return true
}

func (f *fake) shutdown(b *pgproto3.Backend, command string) bool {
	switch {
	case f.script == playRefuse:
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "not allowed"})
		return true
	case f.script == playStubborn && command == "SHUTDOWN SMART":
	case f.script == playCut:
		f.stopped <- command
		return false
	default:
		f.stopped <- command
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHUTDOWN")})
	return true
}

const instanceColumns = "number:20,host,hostaddr,port:20,monitoring,heartbeat,attribute,status,read_only:16,timeline:20,wal,system_identifier,rtt_ms,heard_ms:20,lost:20,received:20,reason,why"

func (f *fake) instances() []string {
	first := "0,db1,192.0.2.1,5432,unknown,down,unknown,unknown,f,0,0/0,,,NULL,0,0,none,no route to host"
	if f.script != playUnready && f.looks.Load() > 2 {
		first = "0,db1,192.0.2.1,5432,monitored,up,primary,up,f,3,0/3000148,7461,0.21,12,1,100,none,"
	}
	return []string{first, "2,,192.0.2.2,5432,unmonitored,down,standby,up,t,3,0/3000148,7461,,5000,0,90,bye,its agent stopped"}
}

// sendTable sends rows of comma-separated fields; a column is name[:type OID].
func sendTable(b *pgproto3.Backend, columns string, rows ...string) {
	var d pgproto3.RowDescription
	for column := range strings.SplitSeq(columns, ",") {
		name, oid, typed := strings.Cut(column, ":")
		f := pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25}
		if typed {
			_, _ = fmt.Sscan(oid, &f.DataTypeOID)
		}
		d.Fields = append(d.Fields, f)
	}
	b.Send(&d)
	for _, row := range rows {
		var r pgproto3.DataRow
		for field := range strings.SplitSeq(row, ",") {
			value := []byte(field)
			if field == "NULL" {
				value = nil
			}
			r.Values = append(r.Values, value)
		}
		b.Send(&r)
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
}

// world is a directory, a bin directory with a fake conmgr, and a cm_ctl.
type world struct {
	dir, bin string
}

func mustWorld(t *testing.T, script string) *world {
	t.Helper()
	root, err := os.MkdirTemp("", "cmctl")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(root, "data"), bin: filepath.Join(root, "bin")}
	t.Cleanup(func() {
		if d, err := conmgr.OpenDirectory(w.dir); err == nil {
			if p, running, _ := d.Running(); running {
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
		_ = os.RemoveAll(root)
	})
	for _, dir := range []string{w.dir, w.bin} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "data/conmgr.conf", "backend_host0 = db1\nbackend_hostaddr2 = 192.0.2.2\n")
	w.write(t, "data/script", script)
	w.install(t, cli.VersionLine("conmgr"))
	return w
}

func (w *world) install(t *testing.T, version string) {
	t.Helper()
	w.write(t, "bin/conmgr", fmt.Sprintf("#!/bin/sh\nCM_CTL_FAKE=1 CM_CTL_FAKE_VERSION='%s' exec '%s' \"$@\"\n", version, os.Args[0]))
}

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(w.dir), name), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// ctl runs cm_ctl in this process as an unprivileged user with CMDATA set.
func (w *world) ctl(args ...string) (exit int, stdout, stderr string) {
	var out, errs strings.Builder
	exit = run(env{
		args: args, stdout: &out, stderr: &errs,
		getenv: func(string) string { return w.dir }, uid: 1000, euid: 1000,
		executable: func() (string, error) { return filepath.Join(w.bin, "cm_ctl"), nil },
		poll:       2 * time.Millisecond, dot: 5 * time.Millisecond,
	})
	return exit, out.String(), errs.String()
}

// startInVain starts conmgr and waits for what does not come, and returns what stdout
// said. Where stderr does not match, conmgr did not get so far in time, as on a busy
// machine: again with more time.
func (w *world) startInVain(t *testing.T, pattern string, args ...string) (stdout string) {
	t.Helper()
	for limit := 100 * time.Millisecond; ; limit *= 2 {
		stdout, stderr := w.must(t, 1, append([]string{"start", "-t", fmt.Sprintf("%dms", limit.Milliseconds())}, args...)...)
		if limit > time.Minute || regexp.MustCompile(`(?s)`+pattern).MatchString(stderr) {
			mustMatch(t, "stderr", stderr, pattern)
			return stdout
		}
		mustEventually(t, func() bool { exit, _, _ := w.ctl("stop", "-m", "immediate"); return exit == 0 })
	}
}

func (w *world) notes() string {
	text, _ := os.ReadFile(filepath.Join(w.dir, "notes"))
	return string(text)
}

// must runs cm_ctl and checks its exit code.
func (w *world) must(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	exit, stdout, stderr := w.ctl(args...)
	if exit != want {
		t.Fatalf("cm_ctl %s: exit %d, want %d\nstdout %s\nstderr %s", strings.Join(args, " "), exit, want, stdout, stderr)
	}
	return stdout, stderr
}

// mustEventually polls for a fact.
func mustEventually(t *testing.T, fact func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for !fact() {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s")
		}
		<-ticker.C
	}
}
