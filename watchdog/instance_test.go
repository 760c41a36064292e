// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func cells(values ...string) [][]byte {
	row := make([][]byte, len(values))
	for i, v := range values {
		if v != "NULL" {
			row[i] = []byte(v)
		}
	}
	return row
}

func TestParseCheck(t *testing.T) {
	got, err := parseCheck(cells("false", "off", "0000000A000000030000002B", "1A/3000028", "7711088046918975619", "1795377593606284", "1795377593598647", "5432"))
	want := observation{attribute: wire.AttributePrimary, timeline: 10, wal: 0x1A03000028, systemID: 7711088046918975619, startUS: 1795377593606284, loadUS: 1795377593598647, port: 5432}
	if err != nil || got != want {
		t.Errorf("primary: %+v, %v", got, err)
	}
	got, err = parseCheck(cells("true", "on", "10", "0/0", "-1", "1", "2", "65535"))
	want = observation{attribute: wire.AttributeStandby, readOnly: true, timeline: 10, systemID: 1<<64 - 1, startUS: 1, loadUS: 2, port: 65535}
	if err != nil || got != want {
		t.Errorf("standby: %+v, %v", got, err)
	}
	good := []string{"true", "on", "10", "0/0", "1", "1", "2", "5432"}
	for column, values := range [][]string{
		{"NULL", "", "maybe"}, {"NULL", "1"}, {"NULL", "-1", "4294967296", "x"}, {"NULL", "0", "/", "0/100000000", "G/0"},
		{"NULL", "", "99999999999999999999"}, {"NULL", "x"}, {"NULL", "x"}, {"NULL", "65536", "-1", strings.Repeat("9", 1000)},
	} {
		for _, v := range values {
			row := append([]string(nil), good...)
			row[column] = v
			if _, err := parseCheck(cells(row...)); !errors.Is(err, errOdd) || len(err.Error()) > 200 || classify(err) != failOdd {
				t.Errorf("column %d is %.20q: %v", column+1, v, err)
			}
		}
	}
	for _, row := range [][][]byte{nil, cells("true"), cells(append(good, "x")...), cells("false", "off", "1", "0/0", "1", "1", "2", "3")} {
		if _, err := parseCheck(row); !errors.Is(err, errOdd) {
			t.Errorf("%q: %v", row, err)
		}
	}
}

func TestClassify(t *testing.T) {
	server := func(code string) error { return fmt.Errorf("x: %w", &pgconn.PgError{Code: code}) }
	for _, test := range []struct {
		err  error
		want failure
	}{
		{server("53300"), failFull}, {server("57P03"), failNotYet}, {server("57P01"), failLost}, {server("28P01"), failDenied},
		{server("42501"), failDenied}, {&net.OpError{Err: syscall.ECONNREFUSED}, failRefused}, {&net.OpError{Err: syscall.ENOENT}, failRefused},
		{context.DeadlineExceeded, failHung}, {os.ErrDeadlineExceeded, failHung}, {&net.OpError{Err: syscall.EAGAIN}, failHung},
		{context.Canceled, failOurs}, {io.EOF, failLost}, {io.ErrUnexpectedEOF, failLost}, {syscall.ECONNRESET, failLost},
		{&net.OpError{Err: syscall.EACCES}, failOurs}, {errOdd, failOdd}, {errors.New("x"), failOurs},
	} {
		if got := classify(test.err); got != test.want {
			t.Errorf("%v is %d, want %d", test.err, got, test.want)
		}
	}
}

func TestFacts(t *testing.T) {
	primary := observation{attribute: wire.AttributePrimary, timeline: 1, wal: 100, systemID: 7, startUS: 1, port: 5432}
	check := func(f *facts) { f.onCheck(primary) }
	door := func(answered bool) func(*facts) { return func(f *facts) { f.onDoor(answered) } }
	fail := func(k failure, alive bool) func(*facts) { return func(f *facts) { f.onFailure(k, alive) } }
	die := (*facts).onDeath
	for _, test := range []struct {
		name  string
		steps []func(*facts)
		want  string // status and attribute
	}{
		{"nothing yet", nil, "unknown unknown"},
		{"check", []func(*facts){check}, "up primary"},
		{"one door missed", []func(*facts){check, door(false)}, "up primary"},
		{"two doors missed", []func(*facts){check, door(false), door(false)}, "unresponsive primary"},
		{"a held connection does not end it", []func(*facts){check, door(false), door(false), check}, "unresponsive primary"},
		{"a door does", []func(*facts){check, door(false), door(false), door(true)}, "up primary"},
		{"not two in a row", []func(*facts){check, door(false), door(true), door(false)}, "up primary"},
		{"connect hung", []func(*facts){check, fail(failHung, true)}, "unresponsive primary"},
		{"and came back", []func(*facts){check, fail(failHung, true), check}, "up primary"},
		{"death", []func(*facts){check, die}, "down primary"},
		{"doors while dead", []func(*facts){check, die, door(false), door(false), check}, "up primary"},
		{"refused", []func(*facts){check, fail(failRefused, false)}, "down primary"},
		{"refused, but the postmaster lives", []func(*facts){check, fail(failRefused, true)}, "unresponsive primary"},
		{"never there", []func(*facts){fail(failRefused, false)}, "down unknown"},
		{"starting up", []func(*facts){fail(failNotYet, false)}, "down unknown"},
		{"crash recovery", []func(*facts){check, fail(failNotYet, true)}, "down primary"},
		{"full", []func(*facts){check, fail(failFull, true)}, "up primary"},
		{"full after a restart", []func(*facts){check, die, fail(failFull, false)}, "up unknown"},
		{"full at start", []func(*facts){fail(failFull, false)}, "up unknown"},
		{"not let in", []func(*facts){check, fail(failDenied, true)}, "up primary"},
		{"odd answer", []func(*facts){check, fail(failOdd, true)}, "up primary"},
		{"odd answer at start", []func(*facts){fail(failOdd, false)}, "unknown unknown"},
		{"own trouble while down", []func(*facts){check, die, fail(failOurs, false)}, "down primary"},
		{"connection lost", []func(*facts){check, fail(failLost, true)}, "up primary"},
		{"smart shutdown", []func(*facts){check, (*facts).onStopping, check, door(true)}, "unresponsive primary"},
		{"started after it", []func(*facts){check, (*facts).onStopping, die, check}, "up primary"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var f facts
			for _, step := range test.steps {
				step(&f)
			}
			state, _, _ := f.fold()
			if got := describe(state); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestFactsGeneration(t *testing.T) {
	var f facts
	o := observation{attribute: wire.AttributeStandby, timeline: 1, wal: 100, systemID: 7, startUS: 1, port: 5432}
	for _, test := range []struct {
		name          string
		change        func()
		changed, news bool
	}{
		{"first", func() {}, true, true},
		{"same", func() {}, false, false},
		{"WAL", func() { o.wal++ }, true, false},
		{"load time", func() { o.loadUS++ }, false, false},
		{"promotion", func() { o.attribute, o.timeline = wire.AttributePrimary, 2 }, true, true},
		{"read-only", func() { o.readOnly = true }, true, true},
		{"start time", func() { o.startUS++ }, true, true},
		{"system identifier", func() { o.systemID++ }, true, true},
		{"paused", func() { f.paused = true }, true, true},
		{"dry run", func() { f.dryRun = true }, true, true},
	} {
		before := f.current.Generation
		test.change()
		f.onCheck(o)
		state, changed, news := f.fold()
		if changed != test.changed || news != test.news || (state.Generation == before+1) != test.news {
			t.Errorf("%s: changed %v, news %v, generation %d after %d", test.name, changed, news, state.Generation, before)
		}
	}
	want := wire.Instance{Attribute: wire.AttributePrimary, Status: wire.StatusUp, ReadOnly: true, Paused: true, DryRun: true,
		Timeline: 2, WAL: 101, SystemID: 8, Port: 5432, StartUS: 2, Generation: 7}
	if diff := cmp.Diff(want, f.current); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServerMajor(t *testing.T) {
	for s, want := range map[string]int{"15.18 (Debian 15.18-0+deb12u1)": 15, "13.0": 13, "18beta1": 18, "": 0, "x": 0, "9.6.24": 9} {
		if got := serverMajor(s); got != want {
			t.Errorf("%q: %d", s, got)
		}
	}
}

// serve answers each connection with f until the test ends.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn)
			}()
		}
	}()
	return l.Addr().String()
}

func TestKnock(t *testing.T) {
	answer := func(b string) func(net.Conn) {
		return func(c net.Conn) {
			var ask [8]byte
			if _, err := io.ReadFull(c, ask[:]); err == nil && binary.BigEndian.Uint32(ask[4:]) == 80877103 {
				_, _ = io.WriteString(c, b)
			}
		}
	}
	for _, test := range []struct {
		name string
		f    func(net.Conn)
		want string
	}{
		{"no TLS", answer("N"), ""},
		{"TLS", answer("S"), ""},
		{"error", answer("E"), "expected S or N"},
		{"hang up", answer(""), "no answer"},
		{"silence", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "no answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			err := knock(t.Context(), nil, "tcp", serve(t, test.f), 100*time.Millisecond)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	if err := knock(t.Context(), nil, "unix", filepath.Join(t.TempDir(), "x"), time.Second); classify(err) != failRefused {
		t.Errorf("nobody there: %v", err)
	}
}

// A server that answers nonsense costs one clear line and nothing else.
func TestMonitorNonsenseServer(t *testing.T) {
	for name, f := range map[string]func(net.Conn){
		"garbage":     func(c net.Conn) { _, _ = c.Write([]byte(strings.Repeat("\x00nonsense\xff", 100))) },
		"huge length": func(c net.Conn) { _, _ = c.Write([]byte("R\x7f\xff\xff\xff")) },
		"http":        func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"hangs up":    func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(serve(t, f))
			w := watchCluster(t, "host="+host+" port="+port+" user=x sslmode=disable")
			eventually(t, "a line", 5*time.Second, func() bool { return strings.Contains(w.lines(), "cannot check the instance") })
			if state := w.State(); state.Status != wire.StatusUnknown {
				t.Errorf("%+v", state)
			}
		})
	}
}

func TestScanEvents(t *testing.T) {
	event := func(mask uint32, name string, pad int) []byte {
		b := make([]byte, unix.SizeofInotifyEvent)
		binary.NativeEndian.PutUint32(b[4:], mask)
		binary.NativeEndian.PutUint32(b[12:], uint32(len(name)+pad))
		return append(append(b, name...), make([]byte, pad)...)
	}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for _, test := range []struct {
		name          string
		events        []byte
		touched, gone bool
	}{
		{"none", nil, false, false},
		{"another file", event(unix.IN_MODIFY, "postmaster.opts", 1), false, false},
		{"the file", event(unix.IN_MODIFY, "postmaster.pid", 2), true, false},
		{"the second", join(event(unix.IN_CREATE, "x", 15), event(unix.IN_CREATE, "postmaster.pid", 2)), true, false},
		{"lost events", event(unix.IN_Q_OVERFLOW, "", 0), true, false},
		{"directory gone", event(unix.IN_IGNORED, "", 0), false, true},
		{"cut short", event(unix.IN_MODIFY, "postmaster.pid", 2)[:20], false, false},
		{"length beyond the buffer", func() []byte {
			b := event(unix.IN_MODIFY, "x", 15)
			binary.NativeEndian.PutUint32(b[12:], 1<<32-1)
			return b
		}(), false, false},
	} {
		if touched, gone := scanEvents(test.events); touched != test.touched || gone != test.gone {
			t.Errorf("%s: %v %v", test.name, touched, gone)
		}
	}
}

func TestPidFileWatch(t *testing.T) {
	dir := t.TempDir()
	w, err := watchPidFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, pidFile)
	content := "1\n" + dir + "\n1\n5432\n" + dir + "\n\n1 1\nready   \n"
	for range 2 { // the same again counts
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.wait(); err != nil {
			t.Fatal(err)
		}
	}
	if isStopping(path) {
		t.Error("ready is not stopping")
	}
	if err := os.WriteFile(path, []byte(strings.Replace(content, "ready   ", "stopping", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if !isStopping(path) {
		t.Error("stopping was not seen")
	}
	ended := make(chan error, 1)
	go func() {
		for err == nil {
			err = w.wait()
		}
		ended <- err
	}()
	w.close()
	w.close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := watchPidFile(filepath.Join(dir, "missing")); err == nil {
		t.Error("watched a directory that does not exist")
	}
}

// The peer of our own socket is ourselves: alive. Its watch ends by close.
func TestPostmasterSelf(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p, err := openPostmaster(conn)
	if err != nil {
		t.Fatal(err)
	}
	if p.pid != os.Getpid() || p.ended() {
		t.Errorf("pid %d, ended %v", p.pid, p.ended())
	}
	done := make(chan error, 1)
	go func() { done <- p.wait() }()
	p.close()
	if err := <-done; err == nil {
		t.Error("wait says that this process ended")
	}
	if p.ended() {
		t.Error("a closed watch says ended")
	}
	if _, err := openPostmaster(new(net.TCPConn)); !errors.Is(err, ErrNotUnix) {
		t.Errorf("TCP: %v", err)
	}
}

// Another trouble with the same instance is told at once, the same one is not.
func TestGist(t *testing.T) {
	t.Parallel()
	reach := func(err error) error {
		return fmt.Errorf("failed to connect to `user=agent`:\n\t10.0.0.1:5432: %w", err)
	}
	password := gist(reach(&pgconn.PgError{Code: "28P01"}))
	for _, other := range []error{&pgconn.PgError{Code: "28000"}, context.DeadlineExceeded, io.EOF} {
		if gist(reach(other)) == password {
			t.Errorf("%v is taken for a wrong password", other)
		}
	}
	again := fmt.Errorf("failed to connect to `user=agent`:\n\t10.0.0.1:5432 from port 40001: %w", &pgconn.PgError{Code: "28P01"})
	if gist(again) != password {
		t.Error("a wrong password is taken for another trouble")
	}
}
