// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// TestKillStandsAlone reads the package's own source: the only statement with
// pg_terminate_backend is the one that names a single pid.
func TestKillStandsAlone(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil || !strings.Contains(strings.ToLower(text), "pg_terminate_backend(") {
				return true
			}
			found++
			if text != "SELECT pg_catalog.pg_terminate_backend($1)" {
				t.Errorf("%s: statement %q", name, text)
			}
			return true
		})
	}
	if found != 1 {
		t.Errorf("%d statements: want 1", found)
	}
	if lower := strings.ToLower(readSQL); strings.Contains(lower, "terminate") || strings.Contains(lower, "cancel") {
		t.Error("a function acts in the statement that reads")
	}
}

// scripted is an instance that answers as it is told.
type scripted struct {
	t        *testing.T
	answer   func(b *pgproto3.Backend, execute int)
	named    atomic.Value // the statement bound last
	executes atomic.Int32
	connects atomic.Int32
}

func (s *scripted) connect(ctx context.Context) (*pgconn.PgConn, error) {
	client, server := net.Pipe()
	s.connects.Add(1)
	go s.serve(server)
	config, err := pgconn.ParseConfig("host=/nowhere user=agent dbname=postgres sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return client, nil }
	return pgconn.ConnectConfig(ctx, config)
}

func (s *scripted) serve(conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for b.Flush() == nil {
		msg, err := b.Receive()
		if err != nil {
			return
		}
		switch msg := msg.(type) {
		case *pgproto3.Query:
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Parse:
			b.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Describe:
			if msg.ObjectType == 'S' {
				b.Send(&pgproto3.ParameterDescription{})
				b.Send(&pgproto3.NoData{})
			}
		case *pgproto3.Bind:
			s.named.Store(msg.PreparedStatement)
			b.Send(&pgproto3.BindComplete{})
		case *pgproto3.Execute:
			n := int(s.executes.Add(1))
			if n == 1000 {
				s.t.Error("the terminator asks without end")
			}
			s.answer(b, n)
		case *pgproto3.Sync:
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Terminate:
			return
		}
	}
}

func sendRow(b *pgproto3.Backend, values ...string) {
	fields := make([]pgproto3.FieldDescription, len(values))
	row := make([][]byte, len(values))
	for i, v := range values {
		fields[i].Name = []byte("c")
		if v != "NULL" {
			row[i] = []byte(v)
		}
	}
	b.Send(&pgproto3.RowDescription{Fields: fields})
	b.Send(&pgproto3.DataRow{Values: row})
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

// TestTerminatorOdd: whatever the instance answers first, nobody is reported
// dead before a proper answer came, and the warrant is not lost.
func TestTerminatorOdd(t *testing.T) {
	t.Parallel()
	now := func() string { return strconv.FormatInt(time.Now().UnixMicro(), 10) }
	empty := func(b *pgproto3.Backend) {
		sendRow(b, now(), "1", "true", "NULL", "NULL", "NULL", "NULL", "NULL", "false", "NULL")
	}
	for name, odd := range map[string]func(b *pgproto3.Backend){
		"no row": func(b *pgproto3.Backend) {
			b.Send(&pgproto3.RowDescription{})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
		},
		"blind": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "false", "NULL", "NULL", "NULL", "NULL", "NULL", "false", "NULL")
		},
		"right is NULL": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "false", "NULL")
		},
		"few columns": func(b *pgproto3.Backend) { sendRow(b, now(), "1", "true") },
		"no time": func(b *pgproto3.Backend) {
			sendRow(b, "NULL", "1", "true", "NULL", "NULL", "NULL", "NULL", "NULL", "false", "NULL")
		},
		"pid zero": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "true", "0", "1", "u", "1", "client backend", "false", "192.0.2.1")
		},
		"pid negative": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "true", "-1", "1", "u", "1", "client backend", "false", "192.0.2.1")
		},
		"pid huge": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "true", "99999999999", "1", "u", "1", "client backend", "false", "192.0.2.1")
		},
		"start is NULL": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "true", "5", "NULL", "u", "1", "client backend", "false", "192.0.2.1")
		},
		"port is a word": func(b *pgproto3.Backend) {
			sendRow(b, now(), "1", "true", "5", "5", "u", "x", "client backend", "false", "192.0.2.1")
		},
		"error": func(b *pgproto3.Backend) {
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42501"})
		},
		"fatal": func(b *pgproto3.Backend) {
			b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := make(chan Result, 1)
			s := &scripted{t: t, answer: func(b *pgproto3.Backend, n int) {
				if n <= 2 {
					odd(b)
				} else {
					empty(b)
				}
			}}
			term := NewTerminator(TerminatorConfig{Connect: s.connect, Done: func(r Result) { results <- r }})
			ctx, cancel := context.WithCancel(t.Context())
			stopped := make(chan error, 1)
			go func() { stopped <- term.Run(ctx) }()
			verdict := clock.Now()
			term.Execute(Warrant{ID: 1, Addr: netip.MustParseAddr("192.0.2.1"), Verdict: verdict})
			r := <-results
			if r.Outcome != OutcomeDone || r.Backends != 0 || r.Err == nil || s.executes.Load() < 3 {
				t.Errorf("result %+v after %d questions", r, s.executes.Load())
			}
			cancel()
			if err := <-stopped; !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		})
	}
}

// TestTerminatorNoInstance: without an instance a warrant is kept, said to be
// stuck once, and can be cancelled; nothing spins.
func TestTerminatorNoInstance(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	results := make(chan Result, 1)
	events := mustEvents(t, t.TempDir(), eventsMaxBytes)
	term := NewTerminator(TerminatorConfig{
		Connect: func(context.Context) (*pgconn.PgConn, error) {
			tries.Add(1)
			return nil, errors.New("connection refused")
		},
		Done: func(r Result) { results <- r }, Events: events,
	})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- term.Run(ctx) }()
	w := Warrant{ID: 1, Addr: netip.MustParseAddr("192.0.2.1"), Verdict: clock.Now()}
	term.Execute(w)
	term.Execute(w)
	scratchEventually(t, "a few attempts", func() bool { return tries.Load() >= 4 })
	if got := events.Latest(10); len(got) != 1 || got[0].Outcome != string(OutcomeStuck) || got[0].Err == "" {
		t.Errorf("events %+v", got)
	}
	term.Cancel(99)
	term.Cancel(w.ID)
	if r := <-results; r.Outcome != OutcomeClosed {
		t.Errorf("result %+v", r)
	}
	if n := tries.Load(); n > 8 {
		t.Errorf("%d attempts: want backoff", n)
	}
	cancel()
	<-stopped
}
