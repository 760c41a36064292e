// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// mustDial connects a raw client.
func mustDial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// framed puts the length word before a first packet.
func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func mustWrite(t testing.TB, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// mustEnd reads until the server closes.
func mustEnd(t testing.TB, conn net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("the server did not close: %v after %q", err, b)
	}
	return b
}

// First packets that are garbage: each gets one clear answer, or none where
// none could be read, and the connection ends.
func TestStartupHostile(t *testing.T) {
	f := mustServe(t, nil)
	healthy := mustConnect(t, f.tcp())
	session := framed(packet(protocol30, "user\x00app\x00database\x00conmgr\x00\x00"))
	for _, tt := range []struct {
		name string
		send []byte
		want string // in the answer; empty: closed quietly
	}{
		{"text", []byte("GET / HTTP/1.1\r\n\r\n"), "invalid length of startup packet"},
		{"huge", binary.BigEndian.AppendUint32(nil, 10_001), "10001, expected 8 to 10000"},
		{"short", binary.BigEndian.AppendUint32(nil, 7), "7, expected 8 to 10000"},
		{"zero", make([]byte, 4), "0, expected 8 to 10000"},
		{"direct tls", []byte{0x16, 3, 1, 2, 0}, ""},
		{"2.0", framed(packet(2<<16, "user\x00app\x00\x00")), "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"},
		{"4.0", framed(packet(4<<16, "user\x00app\x00\x00")), "unsupported frontend protocol 4.0"},
		{"cancel", framed(packet(cancelCode, "pidxkey4")), ""},
		{"cancel of 3.2", framed(packet(cancelCode, "pidx"+strings.Repeat("k", 256))), ""},
		{"no terminator", framed(packet(protocol30, "user\x00app\x00")), "expected terminator"},
		{"pipelined behind ssl", append(framed(packet(sslCode, "")), session...), "received unencrypted data"},
		{"pipelined behind gss", append(framed(packet(gssCode, "")), session...), "received unencrypted data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := mustDial(t, "tcp", f.address())
			mustWrite(t, conn, tt.send)
			_ = conn.(*net.TCPConn).CloseWrite()
			got := mustEnd(t, conn)
			if !bytes.Contains(got, []byte(tt.want)) || tt.want == "" && len(got) > 0 {
				t.Errorf("answer %q, want it to contain %q", got, tt.want)
			}
		})
	}
	mustExec(t, healthy, "SHOW STATUS")
	eventually(t, "only the healthy session is left", func() bool { return f.Apps().Count() == 1 })
}

// SSLRequest, then GSSENCRequest, then a session: all in turn, each byte a
// segment of its own.
func TestStartupInTurn(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustDial(t, "tcp", f.address())
	for _, code := range []uint32{sslCode, gssCode} {
		for _, b := range framed(packet(code, "")) {
			mustWrite(t, conn, []byte{b})
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'N' {
			t.Fatalf("answer %q, %v, want N", answer, err)
		}
	}
	mustWrite(t, conn, framed(packet(3<<16|9999, "user\x00app\x00database\x00conmgr\x00_pq_.test\x00on\x00\x00")))
	front := pgproto3.NewFrontend(conn, conn)
	m, err := front.Receive()
	if err != nil {
		t.Fatal(err)
	}
	n, ok := m.(*pgproto3.NegotiateProtocolVersion)
	if !ok || n.NewestMinorProtocol != protocol32 || len(n.UnrecognizedOptions) != 1 || n.UnrecognizedOptions[0] != "_pq_.test" {
		t.Fatalf("first message %#v, want NegotiateProtocolVersion 3.2 with _pq_.test", m)
	}
	key := awaitReady(t, front)
	if len(key) != 32 {
		t.Errorf("a key of %d bytes, want 32 with protocol 3.2", len(key))
	}
}

// awaitReady reads to ReadyForQuery and returns the cancel key seen.
func awaitReady(t testing.TB, front *pgproto3.Frontend) (key []byte) {
	t.Helper()
	for {
		m, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.BackendKeyData:
			key = append([]byte{}, m.SecretKey...)
		case *pgproto3.ErrorResponse:
			t.Fatalf("%s: %s", m.Code, m.Message)
		case *pgproto3.ReadyForQuery:
			return key
		}
	}
}

// mustStart opens a raw session.
func mustStart(t testing.TB, conn net.Conn) *pgproto3.Frontend {
	t.Helper()
	mustWrite(t, conn, framed(packet(protocol30, "user\x00app\x00database\x00conmgr\x00\x00")))
	front := pgproto3.NewFrontend(conn, conn)
	awaitReady(t, front)
	return front
}

// The port's mark speaks the same protocol.
func TestMark(t *testing.T) {
	f := mustServe(t, nil)
	_, port, _ := net.SplitHostPort(f.address())
	mustStart(t, mustDial(t, "unix", "@pgconmgr:"+port))
	eventually(t, "the session counts", func() bool { return f.Apps().Count() == 1 })
	list := f.apps.list()
	if o := list[0].owner; !o.known || o.uid != uint32(os.Getuid()) || o.pid != int32(os.Getpid()) {
		t.Errorf("owner %+v, want this process", o)
	}
}

// The mark is the console's alone: who wants a database is told where.
func TestMarkOtherDatabase(t *testing.T) {
	f := mustServe(t, func(o *ServerOptions) { o.ProxyListen, o.ProxyTarget = []ProxyPort{{0, Standby}}, Primary })
	conn := mustDial(t, "unix", fmt.Sprintf("@pgconmgr:%d", f.Port()))
	mustWrite(t, conn, framed(packet(protocol30, "user\x00app\x00\x00")))
	got := mustEnd(t, conn)
	want := fmt.Sprintf("Databases are reached by TCP on port %d (primary), %d (standby)", f.Port(), f.ProxyPorts()[0].Port)
	if !bytes.Contains(got, []byte("3D000")) || !bytes.Contains(got, []byte(want)) {
		t.Errorf("answer %q, want 3D000 and %q", got, want)
	}
}

// Messages after startup that break the protocol end the session, with a word.
func TestMessageHostile(t *testing.T) {
	f := mustServe(t, nil)
	for _, tt := range []struct {
		name string
		send []byte
		want string
	}{
		{"huge", append([]byte{'Q'}, 0x7f, 0xff, 0xff, 0xff), "invalid length of message"},
		{"short", append([]byte{'Q'}, 0, 0, 0, 3), "invalid length of message"},
		{"unknown", append([]byte{'z'}, 0, 0, 0, 4), "unexpected message type"},
		{"copy", append([]byte{'d'}, 0, 0, 0, 4), "unexpected message type"},
		{"query without end", append([]byte{'Q'}, 0, 0, 0, 5, 'x'), "invalid Query"},
		{"bind of nothing", append([]byte{'B'}, 0, 0, 0, 4), "invalid Bind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := mustDial(t, "tcp", f.address())
			mustStart(t, conn)
			mustWrite(t, conn, tt.send)
			_ = conn.(*net.TCPConn).CloseWrite()
			if got := mustEnd(t, conn); !bytes.Contains(got, []byte(tt.want)) || !bytes.Contains(got, []byte("FATAL")) {
				t.Errorf("answer %q, want FATAL %s", got, tt.want)
			}
		})
	}
}

// A row limit suspends a portal; an error skips until Sync.
func TestPortalSuspended(t *testing.T) {
	f := mustServe(t, nil)
	conn := mustDial(t, "tcp", f.address())
	front := mustStart(t, conn)
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.Parse{Query: "SHOW INSTANCES"}, &pgproto3.Bind{},
		&pgproto3.Execute{MaxRows: 1}, &pgproto3.Execute{MaxRows: 5},
		&pgproto3.Execute{Portal: "none"}, &pgproto3.Execute{}, &pgproto3.Sync{},
	} {
		front.Send(m)
	}
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	var got string
	for {
		m, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m.(type) {
		case *pgproto3.ParseComplete:
			got += "1"
		case *pgproto3.BindComplete:
			got += "2"
		case *pgproto3.DataRow:
			got += "D"
		case *pgproto3.PortalSuspended:
			got += "s"
		case *pgproto3.CommandComplete:
			got += "C"
		case *pgproto3.ErrorResponse:
			got += "E"
		case *pgproto3.ReadyForQuery:
			got += "Z"
		default:
			t.Fatalf("unexpected %T", m)
		}
		if strings.HasSuffix(got, "Z") {
			break
		}
	}
	if want := "12DsDCEZ"; got != want {
		t.Errorf("messages %s, want %s", got, want)
	}
}

// A client that asks and never reads is told its end without delay for others,
// and leaves nothing behind.
func TestClientThatDoesNotRead(t *testing.T) {
	f := mustServe(t, nil)
	mute := mustDial(t, "tcp", f.address())
	mustStart(t, mute)
	bind := &pgproto3.Query{String: "TARGET primary"}
	b, _ := bind.Encode(nil)
	mustWrite(t, mute, b)
	eventually(t, "the mute client is bound", func() bool { return f.Apps().Bound(0) == 1 })
	ask, _ := (&pgproto3.Query{String: strings.Repeat("SHOW HELP;", 6000)}).Encode(nil)
	_ = mute.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := mute.Write(ask); err != nil { // both directions are full
			break
		}
	}
	healthy := mustConnect(t, f.tcp())
	mustExec(t, healthy, "TARGET primary")
	start := time.Now()
	if told := f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: f.opts.Clock()}); told != 2 {
		t.Errorf("told %d, want 2", told)
	}
	if took := time.Since(start); took > 50*time.Millisecond {
		t.Errorf("the fault waited %s for a client that does not read", took)
	}
	eventually(t, "both have gone", func() bool { return f.Apps().Count() == 0 })
}

// max_connections: closed without a message, and the place is free again later.
func TestMaxConnections(t *testing.T) {
	f := mustServe(t, func(o *ServerOptions) { o.MaxConnections = 1 })
	first := mustDial(t, "tcp", f.address())
	mustStart(t, first)
	if got := mustEnd(t, mustDial(t, "tcp", f.address())); len(got) != 0 {
		t.Errorf("answer %q, want none", got)
	}
	_ = first.Close()
	eventually(t, "the place is free", func() bool { return f.Apps().Count() == 0 })
	mustStart(t, mustDial(t, "tcp", f.address()))
}

// max_connections = 0: until the descriptors are used up but for the reserve.
func TestDescriptorBudget(t *testing.T) {
	f := mustServe(t, func(o *ServerOptions) {
		o.ProxyListen = []ProxyPort{{0, Primary}}
		o.Descriptors = 2
	})
	mustStart(t, mustDial(t, "tcp", f.address()))
	if got := mustEnd(t, mustDial(t, "tcp", f.proxy(0))); len(got) != 0 {
		t.Errorf("a proxied application was taken: %q", got)
	}
	mustStart(t, mustDial(t, "tcp", f.address()))
}

// A taken port, mark or socket is an error that says so.
func TestPortTaken(t *testing.T) {
	f := mustServe(t, nil)
	_, err := NewServer(ServerOptions{Source: f.picture, Route: byAttribute, Port: f.Port()})
	if err == nil || !strings.Contains(err.Error(), "is another conmgr running") {
		t.Errorf("a taken port: %v", err)
	}
	_, err = NewServer(ServerOptions{Source: f.picture, Route: byAttribute, SocketPath: f.socket})
	if err == nil || !strings.Contains(err.Error(), f.socket) {
		t.Errorf("a taken socket: %v", err)
	}
}

// Shutdown: smart waits, the others tell, and new applications are refused.
func TestShutdown(t *testing.T) {
	for mode, want := range map[ShutdownMode]string{
		ShutdownFast:      `{"instance":null,"host":"","hostaddr":"","port":0,"reason":"stop","silence_ms":0}`,
		ShutdownRestart:   `{"instance":null,"host":"","hostaddr":"","port":0,"reason":"restart","silence_ms":0}`,
		ShutdownImmediate: "",
	} {
		t.Run(string(mode), func(t *testing.T) {
			f := mustServe(t, nil)
			conn := mustDial(t, "tcp", f.address())
			mustStart(t, conn)
			if err := f.Shutdown(t.Context(), mode); err != nil {
				t.Fatal(err)
			}
			got := mustEnd(t, conn)
			if !bytes.Contains(got, []byte(want)) || want != "" && !bytes.Contains(got, []byte("57P01")) || want == "" && len(got) > 0 {
				t.Errorf("told %q, want %q", got, want)
			}
			eventually(t, "nobody is left", func() bool { return f.Apps().Count() == 0 })
		})
	}
	t.Run("smart", func(t *testing.T) {
		f := mustServe(t, nil)
		conn := mustDial(t, "tcp", f.address())
		front := mustStart(t, conn)
		ended := make(chan error, 1)
		go func() { ended <- f.Shutdown(t.Context(), ShutdownSmart) }()
		eventually(t, "conmgr takes no more", func() bool { return f.stopping.Load() })
		late := mustDial(t, "tcp", f.address())
		mustWrite(t, late, framed(packet(protocol30, "user\x00app\x00database\x00conmgr\x00\x00")))
		if got := mustEnd(t, late); !bytes.Contains(got, []byte("57P03")) {
			t.Errorf("a late one was told %q", got)
		}
		front.Send(&pgproto3.Query{String: "SHOW STATUS"})
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, front)
		_ = conn.Close()
		_ = late.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// descriptors counts the open ones of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Nothing is left of sessions that ended, however they did.
func TestNoLeak(t *testing.T) {
	f := mustServe(t, func(o *ServerOptions) { o.ProxyListen = []ProxyPort{{0, Primary}} })
	warm := mustDial(t, "tcp", f.address()) // every acceptor runs and epoll exists
	mustStart(t, warm)
	reset(warm)
	eventually(t, "the first session has ended", func() bool { return f.Apps().Count() == 0 })
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	for i := range 50 {
		conn := mustDial(t, "tcp", f.address())
		switch i % 5 {
		case 0:
		case 1:
			mustWrite(t, conn, []byte{0, 0, 0, 9, 1})
		case 2:
			mustStart(t, conn)
		case 3:
			mustWrite(t, conn, []byte("garbage garbage"))
		case 4:
			mustStart(t, conn)
			mustWrite(t, conn, []byte{'Q', 0, 0})
		}
		reset(conn)
	}
	eventually(t, "all sessions have ended", func() bool {
		return f.Apps().Count() == 0 && runtime.NumGoroutine() <= goroutines && descriptors(t) <= fds
	})
}

// A session in startup is not waited for longer than startupTimeout: the
// deadline is on the socket from accept on, whatever drips in.
func TestStartupDeadline(t *testing.T) {
	f := mustServe(t, nil)
	m := &app{kind: KindConsole, connected: time.Now().Add(-startupTimeout + 50*time.Millisecond)}
	here, there := mustPair(t)
	done := make(chan struct{})
	go func() { defer close(done); f.serveConsole(t.Context(), there, m) }()
	mustWrite(t, here, []byte{0, 0, 0, 100})
	if got := mustEnd(t, here); len(got) > 0 {
		t.Errorf("answer %q, want none", got)
	}
	<-done
	if f.stats.startupFailed.Load() != 1 {
		t.Error("the failure was not counted")
	}
}

// mustPair makes two connected TCP sockets.
func mustPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a = mustDial(t, "tcp", l.Addr().String()).(*net.TCPConn)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, conn.(*net.TCPConn)
}

// An outlet that is ended while a message is being written keeps the message
// whole and puts the notice behind it.
func TestOutletEndDuringSend(t *testing.T) {
	here, there := mustPair(t)
	o, err := newOutlet(there)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock() // as a sender does
	o.end([]byte("notice"))
	if o.done.Load() {
		t.Fatal("the notice went into the middle of a message")
	}
	_, _ = there.Write([]byte("message "))
	o.mu.Unlock()
	if err := o.send([]byte("late")); !errors.Is(err, errEnded) {
		t.Errorf("send after the end: %v", err)
	}
	if got := string(mustEnd(t, here)); got != "message notice" {
		t.Errorf("client read %q", got)
	}
	_ = there.Close()
}
