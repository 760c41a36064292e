// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// mustConnect opens a console session of pgx; where is host=... port=....
func mustConnect(t testing.TB, where string, more ...string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), where+" user=app dbname=conmgr "+strings.Join(more, " "))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (f *fixture) tcp() string { return fmt.Sprintf("host=127.0.0.1 port=%d", f.Port()) }

// The columns and types are an API: this table must only grow at the end.
func TestConsoleColumns(t *testing.T) {
	f := mustServe(t, nil)
	for command, want := range map[string]string{
		"SHOW STATUS":       "status pid:20 started version applications:20 instances:20 link_hints",
		"SHOW INSTANCES":    "number:20 host hostaddr port:20 monitoring heartbeat attribute status read_only timeline:20 wal system_identifier rtt_ms:701 heard_ms:20 lost:20 received:20 reason why kills",
		"SHOW APPLICATIONS": "id:20 kind addr port:20 pid:20 uid:20 target instance:20 host connected state",
		"SHOW CONFIG":       "name value file default context",
		"SHOW EVENTS":       "at kind instance:20 reason silence_ms:20 applications:20 detail",
		"SHOW STATS":        "name value:20",
		"SHOW VERSION":      "version",
		"SHOW HELP":         "command description",
		"TARGET any":        "number:20 host hostaddr port:20 attribute",
	} {
		for _, mode := range []string{"simple_protocol", "exec", "cache_statement", "cache_describe"} {
			conn := mustConnect(t, f.tcp(), "default_query_exec_mode="+mode)
			rows, err := conn.Query(t.Context(), command)
			if err != nil {
				t.Fatalf("%s, %s: %v", command, mode, err)
			}
			var got []string
			for _, c := range rows.FieldDescriptions() {
				name := c.Name
				if c.DataTypeOID != oidText {
					name += fmt.Sprintf(":%d", c.DataTypeOID)
				}
				got = append(got, name)
			}
			rows.Close()
			if rows.Err() != nil {
				t.Errorf("%s, %s: %v", command, mode, rows.Err())
			}
			if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s, %s: -want +got\n%s", command, mode, diff)
			}
		}
	}
}

// What an operator reads: the first instance has number 0, what is not known is
// NULL or empty, figures are numbers.
func TestConsoleRows(t *testing.T) {
	events := showEvents([]Event{{Kind: "fault", Instance: new(0)}, {Kind: "shutdown"}})
	if events[0][2] != any(int64(0)) || events[1][2] != nil {
		t.Errorf("instances of the events are %v and %v, want 0 and NULL", events[0][2], events[1][2])
	}
	v := &View{Instances: []InstanceView{{}, {RTT: 1234567, Instance: wire.Instance{Status: wire.StatusUp}}}}
	rows := showInstances(v, 0)
	for i, want := range [][2]any{{nil, ""}, {1.234, "off"}} {
		if got := [2]any{rows[i][12], rows[i][8]}; got != want {
			t.Errorf("rtt_ms and read_only of %d are %v, want %v", i, got, want)
		}
	}
	text, binary := encodeValue(1.5, 0), encodeValue(1.5, 1)
	if string(text) != "1.500" || string(binary) != "\x3f\xf8\x00\x00\x00\x00\x00\x00" {
		t.Errorf("1.5 is %q and %x", text, binary)
	}
}

// Every way to the console, with text and with binary results.
func TestConsoleTarget(t *testing.T) {
	f := mustServe(t, nil)
	for _, where := range []string{
		f.tcp(),
		fmt.Sprintf("host=localhost port=%d sslmode=prefer", f.Port()),
		fmt.Sprintf("host=127.0.0.1 port=%d min_protocol_version=3.2 max_protocol_version=3.2", f.Port()),
	} {
		for _, mode := range []string{"simple_protocol", "exec", "cache_statement"} {
			conn := mustConnect(t, where, "default_query_exec_mode="+mode)
			var number, port int64
			var host, addr, attribute string
			err := conn.QueryRow(t.Context(), "TARGET standby").Scan(&number, &host, &addr, &port, &attribute)
			if err != nil {
				t.Fatalf("%s %s: %v", where, mode, err)
			}
			got := fmt.Sprint(number, host, addr, port, attribute)
			if want := fmt.Sprint(int64(2), "db2", "192.0.2.2", int64(5433), "standby"); got != want {
				t.Errorf("%s %s: %s, want %s", where, mode, got, want)
			}
		}
	}
	if got := f.Apps().Bound(1); got != 9 {
		t.Errorf("%d applications bound to the standby, want 9", got)
	}
}

// TARGET with INSTANCE binds to that instance, and to none that has not the
// attribute.
func TestConsoleTargetInstance(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp(), "default_query_exec_mode=simple_protocol")
	number := func(command string) (n int64, err error) {
		err = conn.QueryRow(t.Context(), command).Scan(&n, nil, nil, nil, nil)
		return n, err
	}
	if n, err := number("TARGET any INSTANCE 2"); n != 2 || err != nil {
		t.Errorf("TARGET any INSTANCE 2: instance %d, %v", n, err)
	}
	if first, second := f.Apps().Bound(0), f.Apps().Bound(1); first != 0 || second != 1 {
		t.Errorf("bound to the first: %d, to the second: %d; want 0 and 1", first, second)
	}
	for command, code := range map[string]string{
		"TARGET primary INSTANCE 2": "58C01", "TARGET any INSTANCE 7": "58C01", "TARGET any INSTANCE": "42601",
		"TARGET any INSTANCE -1": "42601", "TARGET any INSTANCE 1 2": "42601", "TARGET any 1": "42601",
	} {
		_, err := number(command)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != code {
			t.Errorf("%s: %v, want %s", command, err, code)
		}
	}
	if bound := f.Apps().Bound(1); bound != 1 {
		t.Errorf("after what failed, %d are bound to the second; want 1", bound)
	}
}

func TestConsoleNoSuchInstance(t *testing.T) {
	f := mustServe(t, nil)
	lost := instance(1, netip.MustParseAddrPort("192.0.2.1:5432"), wire.AttributePrimary)
	lost.Monitoring = Faulted
	f.picture.set(lost)
	conn := mustConnect(t, f.tcp())
	_, err := conn.Exec(t.Context(), "TARGET primary")
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "58C01" || !strings.Contains(e.Message, "1 db1:5432 is faulted") {
		t.Fatalf("error is %v, want 58C01 that says the state", err)
	}
	if _, err := conn.Exec(t.Context(), "SHOW STATUS"); err != nil {
		t.Errorf("the session did not survive the error: %v", err)
	}
}

// A fault is told as a notification and an error, then the session is closed;
// the others notice nothing.
func TestConsoleFault(t *testing.T) {
	f := mustServe(t, nil)
	payload := make(chan string, 1)
	config, err := pgx.ParseConfig(f.tcp() + " user=app dbname=conmgr")
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { payload <- n.Channel + " " + n.Payload }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, conn, "TARGET primary")
	other := mustConnect(t, f.tcp())
	mustExec(t, other, "TARGET standby")
	idle := mustConnect(t, f.tcp())

	told := f.Apps().Fault(Fault{Index: 0, Reason: "timeout", Silence: 1500 * time.Millisecond, At: clock.Now()})
	if told != 1 {
		t.Errorf("told %d, want 1", told)
	}
	_, err = conn.WaitForNotification(t.Context())
	if err == nil { // pgx gives the notification first
		_, err = conn.WaitForNotification(t.Context())
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "57P01" || e.Severity != "FATAL" {
		t.Fatalf("error is %v, want FATAL 57P01", err)
	}
	want := `conmgr_fault {"instance":1,"host":"db1","hostaddr":"192.0.2.1","port":5432,"reason":"timeout","silence_ms":1500}`
	if got := <-payload; got != want {
		t.Errorf("payload\n%s, want\n%s", got, want)
	}
	if !json.Valid([]byte(strings.TrimPrefix(want, "conmgr_fault "))) {
		t.Error("payload is no JSON")
	}
	mustExec(t, other, "SHOW STATUS")
	mustExec(t, idle, "SHOW STATUS")
	eventually(t, "the lost application has gone", func() bool { return f.Apps().Count() == 2 })
	if again := f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()}); again != 0 {
		t.Errorf("told %d again", again)
	}
	var kind, reason string
	var number, silence int64
	row := idle.QueryRow(t.Context(), "SHOW EVENTS")
	if err := row.Scan(nil, &kind, &number, &reason, &silence, nil, nil); err != nil || kind+reason != "faulttimeout" || number != 1 || silence != 1500 {
		t.Errorf("event %s %s %d %d, %v", kind, reason, number, silence, err)
	}
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// A fault limited to targets ends only those who asked for them, and only when
// the parameter says so.
func TestRoleChange(t *testing.T) {
	for _, tt := range []struct {
		name        string
		role, stale bool
		loser       bool
		want        int
	}{
		{"role change", true, false, false, 1},
		{"role change off", false, true, false, 0},
		{"stale primary", false, true, true, 1},
		{"stale primary off", true, false, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustServe(t, func(o *ServerOptions) { o.CloseOnRoleChange, o.CloseOnStalePrimary = tt.role, tt.stale })
			asked, any := mustConnect(t, f.tcp()), mustConnect(t, f.tcp())
			mustExec(t, asked, "TARGET primary")
			mustExec(t, any, "TARGET any")
			v := *f.picture.View()
			v.Instances = append([]InstanceView(nil), v.Instances...)
			v.Instances[0].Loser = tt.loser
			f.picture.v.Store(&v)
			told := f.Apps().Fault(Fault{Index: 0, Reason: "role change", At: clock.Now(), Only: []Target{Primary, ReadWrite}})
			if told != tt.want {
				t.Errorf("told %d, want %d", told, tt.want)
			}
			mustExec(t, any, "SHOW STATUS")
		})
	}
}

// A restart that is noticed late ends the sessions of the old life only.
func TestFaultBefore(t *testing.T) {
	f := mustServe(t, nil)
	old := mustConnect(t, f.tcp())
	mustExec(t, old, "TARGET primary")
	restarted := clock.Now()
	young := mustConnect(t, f.tcp())
	mustExec(t, young, "TARGET primary")
	told := f.Apps().Fault(Fault{Index: 0, Reason: "restart", At: clock.Now(), Before: restarted})
	if told != 1 {
		t.Errorf("told %d, want 1", told)
	}
	mustExec(t, young, "SHOW STATUS")
	if err := old.Ping(t.Context()); err == nil {
		t.Error("the session of the old life goes on")
	}
}

// A session that is bound by a view older than the fault must not be missed.
func TestFaultBetweenRouteAndBind(t *testing.T) {
	f := mustServe(t, nil)
	before := f.picture.View()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	m := &app{kind: KindConsole}
	f.apps.add(m)
	defer f.apps.remove(m)
	if err := f.apps.bind(m, 0, Primary, before.At, nil); !errors.Is(err, errStaleView) {
		t.Errorf("bind by an old view: %v, want errStaleView", err)
	}
	if err := f.apps.bind(m, 1, Standby, before.At, nil); err != nil {
		t.Errorf("bind to another instance: %v", err)
	}
	at := f.picture.set(before.Instances...)
	if err := f.apps.bind(m, 0, Primary, at, nil); err != nil {
		t.Errorf("bind by a newer view: %v", err)
	}
}

// TARGET waits a moment for the picture that belongs to a fault.
func TestTargetAwaitsNewerView(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp())
	old := f.picture.View()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "TARGET primary")
		answer <- err
	}()
	promoted := append([]InstanceView(nil), old.Instances...)
	promoted[0].Monitoring = Faulted
	promoted[1].Instance.Attribute = wire.AttributePrimary
	f.picture.set(promoted...)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if got := f.Apps().Bound(1); got != 1 {
		t.Errorf("%d bound to the new primary, want 1", got)
	}
}

// What drivers send unasked.
func TestConsoleDriverTraffic(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp(), "application_name=mine")
	for _, sql := range []string{"", ";", "-- ping", "SET extra_float_digits = 3", "RESET ALL", "DISCARD ALL",
		"SELECT 1", "SHOW server_version", "show transaction_read_only", "select pg_catalog.pg_is_in_recovery()"} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if _, err := conn.Exec(t.Context(), sql, mode); err != nil {
				t.Errorf("%q: %v", sql, err)
			}
		}
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	for _, attrs := range []string{"primary", "read-write", "prefer-standby"} {
		mustConnect(t, f.tcp(), "target_session_attrs="+attrs)
	}
	var name string
	if err := conn.QueryRow(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != "mine" {
		t.Errorf("application_name %q, %v", name, err)
	}
	status := conn.PgConn().ParameterStatus
	if status("conmgr_version") != "1.2.3" || status("application_name") != "mine" || status("in_hot_standby") != "off" {
		t.Error("parameters of the session are missing")
	}
}

func TestConsoleTransaction(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp())
	status := func() string { return string(conn.PgConn().TxStatus()) }
	mustExec(t, conn, "BEGIN")
	if status() != "T" {
		t.Errorf("status %s after BEGIN", status())
	}
	if _, err := conn.Exec(t.Context(), "FLY"); err == nil {
		t.Error("FLY is no error")
	}
	if status() != "E" {
		t.Errorf("status %s after an error", status())
	}
	_, err := conn.Exec(t.Context(), "SHOW STATUS")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "25P02" {
		t.Errorf("in a failed transaction: %v, want 25P02", err)
	}
	tag, err := conn.Exec(t.Context(), "COMMIT")
	if err != nil || tag.String() != "ROLLBACK" || status() != "I" {
		t.Errorf("COMMIT: %s, status %s, %v", tag, status(), err)
	}
}

// Several statements in one Query: each answers, an error ends the rest, and a
// syntax error lets none run.
func TestConsoleSeveralStatements(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp()).PgConn()
	results, err := conn.Exec(t.Context(), "SHOW VERSION; TARGET any; SELECT 1").ReadAll()
	if err != nil || len(results) != 3 || len(results[1].Rows) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	results, err = conn.Exec(t.Context(), "TARGET standby; SHUTDOWN FAST; TARGET primary").ReadAll()
	if err == nil || f.Apps().Bound(1) != 1 || len(results[0].Rows) != 1 {
		t.Errorf("after an error: %v, %d bound to the standby", err, f.Apps().Bound(1))
	}
	if _, err = conn.Exec(t.Context(), "TARGET primary; FLY").ReadAll(); err == nil || f.Apps().Bound(0) != 0 {
		t.Errorf("a syntax error did not stop the whole: %v", err)
	}
}

// Portals with a row limit, as JDBC's fetch size uses them, and errors that
// skip until Sync.
func TestConsoleExtended(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustConnect(t, f.tcp())
	batch := &pgx.Batch{}
	batch.Queue("SHOW VERSION")
	batch.Queue("FLY")
	batch.Queue("SHOW VERSION")
	results := conn.SendBatch(t.Context(), batch)
	if err := results.Close(); err == nil {
		t.Error("the batch's error was lost")
	}
	mustExec(t, conn, "SHOW STATUS")
	if _, err := conn.Prepare(t.Context(), "s1", "SHOW INSTANCES"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 2 {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
	if err := conn.Deallocate(t.Context(), "s1"); err != nil {
		t.Error(err)
	}
}

// conmgr.sock: SHUTDOWN is taken, sessions do not count.
func TestControlSocket(t *testing.T) {
	asked := make(chan ShutdownMode, 1)
	f := mustServe(t, func(o *ServerOptions) {
		o.MaxConnections = 1
		o.Shutdown = func(m ShutdownMode) error { asked <- m; return nil }
	})
	mustConnect(t, f.tcp(), "sslmode=disable")
	config, err := pgx.ParseConfig("user=app dbname=conmgr host=" + f.socket)
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.socket)
	}
	control, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, control, "SHUTDOWN SMART")
	if got := <-asked; got != ShutdownSmart {
		t.Errorf("mode %q", got)
	}
	if got := f.Apps().Count(); got != 1 {
		t.Errorf("%d applications, want 1", got)
	}
	_ = control.Close(t.Context())
}

// Instances count from 0: that number is not "none".
func TestEventsOfInstanceZero(t *testing.T) {
	rows := showEvents([]Event{{Kind: "fault", Instance: new(0)}, {Kind: "shutdown"}})
	if rows[0][2] != int64(0) || rows[1][2] != nil {
		t.Errorf("instances %v and %v, want 0 and NULL", rows[0][2], rows[1][2])
	}
}
