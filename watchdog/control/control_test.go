// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// agent is a Handler.
type agent struct {
	mu       sync.Mutex // guards the following
	orders   []Order
	sessions []Session
	err      error
	warning  string
	stuck    chan struct{} // when not nil, Status waits for it
}

func (a *agent) Status(ctx context.Context) (Status, error) {
	if a.stuck != nil {
		select {
		case <-a.stuck:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return Status{Version: "1.2.3", Kills: "enabled"}, a.err
}

func (a *agent) Sessions(_ context.Context, each func(*Session) error) error {
	for i := range a.sessions {
		if err := each(&a.sessions[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) Pause(_ context.Context, o Order) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.orders = append(a.orders, o)
	return a.warning, a.err
}

// mustServe runs a server in a directory, which it returns.
func mustServe(t *testing.T, a *agent) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Listen(filepath.Join(dir, SocketName), a, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, s)
	return s, dir
}

// mustRun runs a server until the end of the test.
func mustRun(t *testing.T, s *Server) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
}

func mustAsk(t *testing.T, dir string, q Question) *Reply {
	t.Helper()
	r, err := Ask(t.Context(), dir, q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustConnect(t *testing.T, dir string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAsk(t *testing.T) {
	t.Parallel()
	a := &agent{warning: "the disk is full"}
	for i := range 3000 {
		a.sessions = append(a.sessions, Session{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), State: "up", HeardMS: new(int64(i))})
	}
	_, dir := mustServe(t, a)
	want := Status{Version: "1.2.3", Kills: "enabled"}
	if r := mustAsk(t, dir, Question{Do: DoStatus}); cmp.Diff(want, r.Status) != "" || r.Sessions != nil {
		t.Errorf("status: %+v", r)
	}
	r := mustAsk(t, dir, Question{Do: DoSessions})
	if diff := cmp.Diff(a.sessions, r.Sessions, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Errorf("sessions (-want +got):\n%s", diff)
	}
	want.Warning = a.warning
	if r := mustAsk(t, dir, Question{Do: DoPause, ForMS: 1500, By: "alice", Reason: "cables"}); cmp.Diff(want, r.Status) != "" {
		t.Errorf("pause: %+v", r)
	}
	mustAsk(t, dir, Question{Do: DoResume})
	who := userName(uint32(os.Geteuid()))
	orders := []Order{{For: 1500 * time.Millisecond, By: who + " for alice", Reason: "cables"}, {By: who}}
	if diff := cmp.Diff(orders, a.orders); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
}

func TestAskRefused(t *testing.T) {
	t.Parallel()
	a := &agent{err: errors.New("not today")}
	_, dir := mustServe(t, a)
	for _, q := range []Question{{Do: DoStatus}, {Do: DoPause, ForMS: 1}, {Do: DoResume}} {
		if r, err := Ask(t.Context(), dir, q); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not today") {
			t.Errorf("%s: %+v, %v", q.Do, r, err)
		}
	}
}

// Without an agent the caller learns in which way there is none.
func TestAskNobody(t *testing.T) {
	t.Parallel()
	ask := func(dir string) error { _, err := Ask(t.Context(), dir, Question{Do: DoStatus}); return err }
	dir := t.TempDir()
	if err := ask(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if err := ask(dir); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody serves: %v", err)
	}
	if err := ask(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "expected at most 107") {
		t.Errorf("long path: %v", err)
	}
}

// The agent that does not answer is given up when the caller says so.
func TestAskHangs(t *testing.T) {
	t.Parallel()
	a := &agent{stuck: make(chan struct{})}
	_, dir := mustServe(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Ask(ctx, dir, Question{Do: DoStatus}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// Others than root and the own user are refused by what the kernel says of them,
// also when the modes let them in.
func TestStrangers(t *testing.T) {
	t.Parallel()
	a := &agent{}
	s, dir := mustServe(t, a)
	if !s.allowed(0) || !s.allowed(uint32(os.Geteuid())) || s.allowed(uint32(os.Geteuid())+1) {
		t.Error("who is allowed: expected root and the own user")
	}
	asked := make(chan uint32, 1)
	b := &agent{}
	other, err := Listen(filepath.Join(dir, "other"), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	other.allowed = func(uid uint32) bool { asked <- uid; return false }
	mustRun(t, other)
	c, err := net.Dial("unix", filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := ask(c, Question{Do: DoPause, ForMS: 1})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "only root and the user of pgwatchdog") {
		t.Errorf("%+v, %v", r, err)
	}
	if uid := <-asked; uid != uint32(os.Geteuid()) {
		t.Errorf("the server was asked about uid %d", uid)
	}
	if len(b.orders) > 0 {
		t.Error("a stranger paused")
	}
}

// Every question that is wrong gets an error, and the next one is answered.
func TestWrongQuestions(t *testing.T) {
	t.Parallel()
	a := &agent{}
	_, dir := mustServe(t, a)
	for _, tt := range []struct{ name, send, want string }{
		{"empty", "\n", "no JSON object"},
		{"garbage", "\x00\xff\x16\n", "no JSON object"},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no JSON object"},
		{"array", "[1]\n", "no JSON object"},
		{"nothing asked", "{}\n", "expected status, sessions, pause or resume"},
		{"unknown", `{"do":"shutdown"}` + "\n", `unknown request \"shutdown\"`},
		{"no time", `{"do":"pause"}` + "\n", "for_ms"},
		{"negative", `{"do":"pause","for_ms":-1}` + "\n", "for_ms"},
		{"overflow", `{"do":"pause","for_ms":9223372036854775807}` + "\n", "for_ms"},
		{"long reason", `{"do":"pause","for_ms":1,"reason":"` + strings.Repeat("x", 201) + `"}` + "\n", "expected at most 200"},
		{"two lines", `{"do":"pause","for_ms":1,"reason":"a\nb"}` + "\n", "one line"},
		{"terminal", `{"do":"resume","by":"\u001b[2J"}` + "\n", "one line"},
		{"too long", `{"do":"status","x":"` + strings.Repeat("x", maxQuestion) + `"}` + "\n", "too long"},
	} {
		c := mustConnect(t, dir)
		if _, err := c.Write([]byte(tt.send)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if !strings.HasPrefix(line, `{"error":"`) || !strings.Contains(line, tt.want) {
			t.Errorf("%s: %q, %v, want an error with %q", tt.name, line, err, tt.want)
		}
		_ = c.Close()
	}
	if len(a.orders) > 0 {
		t.Errorf("carried out: %+v", a.orders)
	}
	mustAsk(t, dir, Question{Do: DoStatus})
}

// Who connects and says nothing is one of eight; the ninth is told, and when the
// silent ones have gone there is room again.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	s, dir := mustServe(t, &agent{})
	var silent []net.Conn
	for range maxClients {
		silent = append(silent, mustConnect(t, dir))
	}
	agenttest.Eventually(t, time.Minute, "all are waited for", func() bool { return len(s.slots) == maxClients })
	busy := func() bool {
		_, err := Ask(t.Context(), dir, Question{Do: DoStatus})
		return err != nil && strings.Contains(err.Error(), "busy: 8 others")
	}
	if !busy() {
		t.Error("the ninth is not told")
	}
	for _, c := range silent {
		_ = c.Close()
	}
	agenttest.Eventually(t, time.Minute, "there is room again", func() bool { return !busy() })
}

// A question that does not come is given up by the server.
func TestSilentClientIsGivenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Listen(filepath.Join(dir, SocketName), &agent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 50 * time.Millisecond
	mustRun(t, s)
	began := time.Now()
	line, err := bufio.NewReader(mustConnect(t, dir)).ReadString('\n')
	if took := time.Since(began); err != nil || !strings.Contains(line, "i/o timeout") || took < s.patience {
		t.Errorf("%q, %v after %v", line, err, took)
	}
}

// A server that ends does not wait for its clients.
func TestEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Listen(filepath.Join(dir, SocketName), &agent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	silent := mustConnect(t, dir)
	stop()
	select {
	case <-ended:
	case <-time.After(questionLimit - time.Second):
		t.Error("the server waits for a silent client")
	}
	_ = silent.Close()
	if _, err := os.Lstat(filepath.Join(dir, SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

// An answer counts only with its end.
func TestTornAnswers(t *testing.T) {
	t.Parallel()
	const status, end = `{"status":{"kills":"enabled"}}` + "\n", `{"end":true}` + "\n"
	for _, tt := range []struct {
		name, answer string
		torn         bool
	}{
		{"empty", "", true},
		{"no end", status, true},
		{"half a line", status + `{"end":tr`, true},
		{"no status", end, true},
		{"endless line", status + strings.Repeat("x", maxAnswer+1), true},
		{"whole", status + end, false},
		{"more than is known", `{"status":{"kills":"enabled","moon":"full"}}` + "\n" + `{"weather":{"rain":true}}` + "\n" + end, false},
	} {
		r, err := readReply(strings.NewReader(tt.answer), 1)
		if errors.Is(err, ErrTorn) != tt.torn || !tt.torn && (err != nil || r.Status.Kills != "enabled") {
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		}
	}
	many := status + strings.Repeat(`{"session":{}}`+"\n", 3) + end
	if _, err := readReply(strings.NewReader(many), 2); err == nil {
		t.Error("an answer without a bound was taken")
	}
}

func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{`{"do":"status"}`, `{"do":"pause","for_ms":1000,"by":"a","reason":"b"}`, `{"do":null}`, "", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := parseQuestion(line)
		if err != nil {
			return
		}
		if q.Do == DoPause && q.For() <= 0 || CheckText(q.By) != nil || CheckText(q.Reason) != nil {
			t.Errorf("accepted %+v", q)
		}
		again, err := appendLine(nil, q)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseQuestion(bytes.TrimSuffix(again, []byte("\n"))); err != nil || back != q {
			t.Errorf("%+v became %+v, %v", q, back, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"status":{}}` + "\n" + `{"session":{"address":"10.0.0.1"}}` + "\n" + `{"end":true}` + "\n"))
	f.Add([]byte(`{"error":"x"}` + "\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if r, err := readReply(bytes.NewReader(answer), 100); (r == nil) == (err == nil) {
			t.Error(fmt.Sprint(r, err))
		}
	})
}
