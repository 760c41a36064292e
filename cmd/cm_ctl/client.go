// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgconmgr/pgconmgr/conmgr"
)

// answerLimit is how long a conmgr that took the connection may think about one
// question.
const answerLimit = 5 * time.Second

// client is a connection to the console on conmgr.sock.
type client struct{ conn *pgconn.PgConn }

// dial connects to the conmgr of a directory.
func dial(ctx context.Context, d *conmgr.Directory) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	config, err := pgconn.ParseConfig("host=localhost port=1 user=cm_ctl database=conmgr sslmode=disable target_session_attrs=any application_name=cm_ctl")
	if err != nil {
		return nil, err
	}
	config.Host, config.Fallbacks = d.Path(), nil // a path: nothing is resolved
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.SocketPath())
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", d.SocketPath(), plainCause(err))
	}
	return &client{conn}, nil
}

// errNoAnswer says that conmgr is there and silent.
var errNoAnswer = errors.New("no answer in time")

// plainCause leaves out pgconn's description of a connection that nobody
// configured.
func plainCause(err error) error {
	var server *pgconn.PgError
	var file *os.SyscallError
	switch {
	case errors.As(err, &server):
		return server
	case errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer
	case errors.As(err, &file):
		return file.Err
	}
	return err
}

// close says goodbye; it never waits long.
func (c *client) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
}

// table is the answer to a SHOW command. Columns are found by name, so that a
// newer conmgr may have more of them.
type table struct {
	columns []string
	types   []uint32
	rows    [][]*string // nil is NULL
}

// text returns a field, "" for NULL and for a column that is not there.
func (t *table) text(row int, column string) string {
	for i, name := range t.columns {
		if name == column && t.rows[row][i] != nil {
			return *t.rows[row][i]
		}
	}
	return ""
}

// query runs one console command.
func (c *client) query(ctx context.Context, command string) (*table, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	results, err := c.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, plainCause(err))
	}
	if len(results) != 1 {
		return nil, fmt.Errorf("%s: expected one result, got %d", command, len(results))
	}
	t := &table{}
	for _, f := range results[0].FieldDescriptions {
		t.columns = append(t.columns, f.Name)
		t.types = append(t.types, f.DataTypeOID)
	}
	for _, row := range results[0].Rows {
		t.rows = append(t.rows, fields(row))
	}
	return t, nil
}

func fields(row [][]byte) []*string {
	out := make([]*string, len(row))
	for i, b := range row {
		if b != nil {
			s := string(b)
			out[i] = &s
		}
	}
	return out
}

// value returns a field as JSON has it: numbers and booleans as such.
func (t *table) value(row, column int) any {
	s := t.rows[row][column]
	switch {
	case s == nil:
		return nil
	case t.types[column] == pgtype.BoolOID:
		return *s == "t"
	case t.types[column] == pgtype.Int8OID, t.types[column] == pgtype.Float8OID:
		return jsonNumber(*s)
	}
	return *s
}
