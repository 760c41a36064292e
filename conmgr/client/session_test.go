// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// script is a console that has said everything beforehand.
type script struct {
	net.Conn
	*bytes.Reader
}

func (s script) Read(b []byte) (int, error)       { return s.Reader.Read(b) }
func (s script) Write(b []byte) (int, error)      { return len(b), nil }
func (s script) Close() error                     { return nil }
func (s script) SetDeadline(time.Time) error      { return nil }
func (s script) WriteTo(io.Writer) (int64, error) { panic("not used") }

func encode(t testing.TB, list ...pgproto3.BackendMessage) []byte {
	t.Helper()
	var b []byte
	for _, m := range list {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func row(values ...string) *pgproto3.DataRow {
	m := &pgproto3.DataRow{}
	for _, v := range values {
		m.Values = append(m.Values, []byte(v))
	}
	return m
}

// What is no console is told from one, in words.
func TestNoConsole(t *testing.T) {
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	hello := encode(t, &pgproto3.AuthenticationOk{}, ready)
	for name, tt := range map[string]struct {
		said []byte
		want string
	}{
		"nothing":      {nil, "max_connections"},
		"half":         {hello[:7], "EOF"},
		"password":     {encode(t, &pgproto3.AuthenticationCleartextPassword{}), "no console"},
		"error":        {encode(t, &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "conmgr is ending"}), "conmgr is ending"},
		"none":         {append(hello, encode(t, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "58C01", Message: "db1 is faulted"})...), "no instance: db1 is faulted"},
		"few columns":  {append(hello, encode(t, row("1", "db1"))...), "unknown row"},
		"no port":      {append(hello, encode(t, row("1", "db1", "", "99999", "primary"))...), "row of conmgr"},
		"no number":    {append(hello, encode(t, row("x", "db1", "", "1", "primary"))...), "row of conmgr"},
		"a fault":      {append(hello, encode(t, &pgproto3.NotificationResponse{Channel: faultChannel})...), "lost meanwhile"},
		"another's":    {[]byte("HTTP/1.1 400 Bad Request\r\n"), "length"},
		"tiny message": {[]byte{'Z', 0, 0, 0, 3}, "length"},
	} {
		_, _, err := openSession(t.Context(), script{Reader: bytes.NewReader(tt.said)}, "u", "a", "any")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	more := row("1", "db1", "192.0.2.1", "5432", "primary", "a column of the future")
	_, list, err := openSession(t.Context(), script{Reader: bytes.NewReader(append(hello, encode(t, more, ready)...))}, "u", "a", "any")
	if err != nil || len(list) != 1 || list[0] != (Instance{1, "db1", "192.0.2.1", 5432, "primary"}) {
		t.Errorf("a good answer: %v, %v", list, err)
	}
}

// Notices that cannot be read are faults: what is unclear must not be waited for.
func TestNotices(t *testing.T) {
	tell := func(channel, payload string) []byte {
		return encode(t, &pgproto3.NotificationResponse{Channel: channel, Payload: payload})
	}
	for said, want := range map[string]notice{
		string(tell(faultChannel, `{"instance":1,"reason":"timeout","silence_ms":20}`)):                    {false, "timeout", 20 * time.Millisecond},
		string(tell(faultChannel, `{"instance":null,"reason":"restart"}`)):                                 {true, "restart", 0},
		string(tell("other", "x")) + string(tell(faultChannel, `{"instance":0,"reason":"down","new":[]}`)): {false, "down", 0},
		string(tell(faultChannel, `{}`)):                                                                   {true, "it gave no reason", 0},
		string(tell(faultChannel, "")):                                                                     {false, "it told a fault that cannot be read", 0},
		"":                                                                                                 {true, "it ended without a word", 0},
		string(encode(t, &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "gone"})): {true, "conmgr: FATAL: gone (SQLSTATE 57P01)", 0},
	} {
		s := &session{conn: script{}, in: newReader(strings.NewReader(said))}
		if got := s.wait(); got != want {
			t.Errorf("%q: %+v, want %+v", said, got, want)
		}
	}
}

// Whatever somebody says in the place of a console is an error or an answer with
// instances that he has named.
func FuzzSession(f *testing.F) {
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	f.Add(encode(f, &pgproto3.AuthenticationOk{}, ready, row("1", "db1", "192.0.2.1", "5432", "primary"), ready,
		&pgproto3.NotificationResponse{Channel: faultChannel, Payload: `{"instance":1,"reason":"timeout"}`}))
	f.Add(encode(f, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "58C01"}))
	f.Add([]byte("Zxxxx"))
	f.Fuzz(func(t *testing.T, said []byte) {
		s, list, err := openSession(context.Background(), script{Reader: bytes.NewReader(said)}, "u", "a", "any")
		if err != nil {
			return
		}
		if rows := bytes.Count(said, []byte{'D'}); len(list) > rows {
			t.Errorf("%d instances of %d rows", len(list), rows)
		}
		if n := s.wait(); n.conmgr && n.reason == "" {
			t.Error("conmgr ended, and nothing says how")
		}
	})
}
