// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// postgres is a scripted server: it knows what pgx asks when it connects, and a
// few statements that block.
type postgres struct {
	listener net.Listener
	tls      *tls.Config // nil declines encryption
	password string      // asked for in clear text unless empty
	mute     bool        // accepts and never answers

	mu        sync.Mutex // guards the following
	standby   bool
	readOnly  bool
	accepted  int
	cancels   int
	blocking  int      // statements that block, so far
	names     []string // server names that TLS asked for
	startups  []map[string]string
	passwords []string
	conns     map[net.Conn]bool
}

// mustPostgres starts a server on loopback; nil options leave it a plain primary.
func mustPostgres(t testing.TB, change func(*postgres)) *postgres {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postgres{listener: l, conns: map[net.Conn]bool{}}
	if change != nil {
		change(p)
	}
	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	t.Cleanup(func() {
		_ = l.Close()
		p.closeAll()
		running.Wait()
	})
	return p
}

func (p *postgres) port() uint16 { return uint16(p.listener.Addr().(*net.TCPAddr).Port) }

func (p *postgres) accept(running *sync.WaitGroup) {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.accepted++
		p.conns[conn] = true
		p.mu.Unlock()
		running.Go(func() {
			defer p.forget(conn)
			p.serve(conn)
		})
	}
}

func (p *postgres) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

func (p *postgres) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.(*net.TCPConn).CloseRead() // wakes a poll of it, which Close does not
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.Close()
	}
}

// count reads a counter under the lock.
func (p *postgres) count(of func(*postgres) int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return of(p)
}

func accepted(p *postgres) int { return p.accepted }
func open(p *postgres) int     { return len(p.conns) }
func cancels(p *postgres) int  { return p.cancels }
func blocking(p *postgres) int { return p.blocking }

// startup returns the parameters of the last one.
func (p *postgres) startup() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.startups) == 0 {
		return nil
	}
	return p.startups[len(p.startups)-1]
}

func (p *postgres) serve(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	for {
		m, err := b.ReceiveStartupMessage()
		if err != nil || p.mute {
			if p.mute {
				_, _ = conn.Read(make([]byte, 1))
			}
			return
		}
		switch m := m.(type) {
		case *pgproto3.SSLRequest:
			if p.tls == nil {
				_, _ = conn.Write([]byte("N"))
				continue
			}
			_, _ = conn.Write([]byte("S"))
			secured := tls.Server(conn, p.tls)
			if secured.Handshake() != nil {
				return
			}
			p.note(func() { p.names = append(p.names, secured.ConnectionState().ServerName) })
			conn, b = secured, pgproto3.NewBackend(secured, secured)
		case *pgproto3.CancelRequest:
			p.note(func() { p.cancels++ })
			return
		case *pgproto3.StartupMessage:
			p.note(func() { p.startups = append(p.startups, maps.Clone(m.Parameters)) })
			p.session(conn, b)
			return
		}
	}
}

func (p *postgres) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// session lets a client in and answers its simple queries.
func (p *postgres) session(conn net.Conn, b *pgproto3.Backend) {
	if p.password != "" && !p.authenticate(b) {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte{1, 2, 3, 4}})
	status := byte('I')
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: status})
		if b.Flush() != nil {
			return
		}
		m, err := b.Receive()
		q, ok := m.(*pgproto3.Query)
		if parse, extended := m.(*pgproto3.Parse); extended {
			q, ok = &pgproto3.Query{String: parse.Query}, parse.Query == "block"
		}
		if err != nil || !ok {
			return
		}
		switch sql := strings.ToLower(q.String); {
		case sql == "begin":
			status = 'T'
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})
		case strings.HasPrefix(sql, "block"):
			p.note(func() { p.blocking++ })
			waitHangup(conn)
			return
		case strings.HasPrefix(sql, "copy"):
			b.Send(&pgproto3.CopyInResponse{})
			_ = b.Flush()
			p.note(func() { p.blocking++ })
			waitHangup(conn) // nothing that the client sends is read
			return
		default:
			p.answer(b, sql)
		}
	}
}

func (p *postgres) authenticate(b *pgproto3.Backend) bool {
	b.Send(&pgproto3.AuthenticationCleartextPassword{})
	_ = b.SetAuthType(pgproto3.AuthTypeCleartextPassword)
	if b.Flush() != nil {
		return false
	}
	m, err := b.Receive()
	given, ok := m.(*pgproto3.PasswordMessage)
	if err != nil || !ok {
		return false
	}
	p.note(func() { p.passwords = append(p.passwords, given.Password) })
	if given.Password != p.password {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "wrong password"})
		_ = b.Flush()
		return false
	}
	return true
}

// answer knows what pgx asks for target_session_attrs.
func (p *postgres) answer(b *pgproto3.Backend, sql string) {
	p.mu.Lock()
	value := map[string]string{
		"select pg_is_in_recovery()": map[bool]string{true: "t", false: "f"}[p.standby],
		"show transaction_read_only": map[bool]string{true: "on", false: "off"}[p.standby || p.readOnly],
	}[sql]
	p.mu.Unlock()
	if value == "" {
		b.Send(&pgproto3.EmptyQueryResponse{})
		return
	}
	b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("v"), DataTypeOID: 25, TypeModifier: -1, DataTypeSize: -1}}})
	b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

// dsn is a connection string straight to the server.
func (p *postgres) dsn() string { return fmt.Sprintf("host=127.0.0.1 port=%d %s", p.port(), plain) }
