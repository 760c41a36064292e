// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/watchdog"
)

// askLimit bounds connecting to the database, and each question.
const askLimit = 5 * time.Second

// backend is a database session as pg_stat_activity shows it. Texts are empty
// when it shows none.
type backend struct {
	pid                         int32
	client                      netip.AddrPort
	user, database, state, kind string
	queryStart                  time.Time     // zero: none yet
	queryAgo                    time.Duration // by the database's clock
}

// sessionsSQL always gives a row, so that a role that may not see the addresses
// of others can be told from an empty database.
const sessionsSQL = `SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')::pg_catalog.text,
 pg_catalog.current_setting('port'),
 a.pid, pg_catalog.host(a.client_addr), a.client_port, a.usename, a.datname, a.state, a.backend_type,
 (extract(epoch FROM a.query_start) * 1000000)::pg_catalog.int8,
 (extract(epoch FROM pg_catalog.clock_timestamp() - a.query_start) * 1000000)::pg_catalog.int8
FROM (SELECT 1) one
LEFT JOIN pg_catalog.pg_stat_activity a ON a.client_addr IS NOT NULL AND a.client_port > 0`

const sessionsColumns = 11

// sessions is one answer of the database.
type sessions struct {
	port     uint16 // that the instance listens on
	blind    bool   // the role sees its own sessions only
	backends []backend
}

// database is a connection that knows the sessions of an instance. It only reads.
type database struct {
	dsn  string
	conn *pgconn.PgConn // nil: to be opened
}

func (d *database) connect(ctx context.Context) error {
	conn, err := watchdog.Connect(ctx, watchdog.ConnectOptions{DSN: d.dsn, ApplicationName: program, Timeout: askLimit})
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return usageError("--dsn: %w", parse)
	}
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	d.conn = conn
	return nil
}

func (d *database) close() {
	if d.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.conn.Close(ctx)
	d.conn = nil
}

// sessions asks the database, after connecting when needed.
func (d *database) sessions(ctx context.Context) (sessions, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if d.conn == nil {
		if err := d.connect(ctx); err != nil {
			return sessions{}, err
		}
	}
	out, err := d.read(ctx)
	if err != nil {
		d.close() // the next question tries again
		return sessions{}, fmt.Errorf("database: read pg_stat_activity: %w", err)
	}
	return out, nil
}

func (d *database) read(ctx context.Context) (sessions, error) {
	var out sessions
	var odd error
	reader := d.conn.ExecParams(ctx, sessionsSQL, nil, nil, nil, nil)
	for reader.NextRow() {
		odd = errors.Join(odd, out.add(reader.Values()))
	}
	if _, err := reader.Close(); err != nil {
		return sessions{}, err
	}
	return out, odd
}

// add parses one row of sessionsSQL.
func (s *sessions) add(row [][]byte) error {
	if len(row) != sessionsColumns {
		return fmt.Errorf("%d columns: expected %d", len(row), sessionsColumns)
	}
	port, err := strconv.ParseUint(string(row[1]), 10, 16)
	if err != nil {
		return fmt.Errorf("port %q: expected a number", row[1])
	}
	s.blind, s.port = string(row[0]) != "true", uint16(port)
	if row[2] == nil {
		return nil
	}
	pid, err1 := strconv.ParseInt(string(row[2]), 10, 32)
	addr, err2 := netip.ParseAddr(string(row[3]))
	clientPort, err3 := strconv.ParseUint(string(row[4]), 10, 16)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	b := backend{
		pid: int32(pid), client: netip.AddrPortFrom(addr.Unmap(), uint16(clientPort)),
		user: string(row[5]), database: string(row[6]), state: string(row[7]), kind: string(row[8]),
	}
	if row[9] != nil && row[10] != nil {
		start, err1 := strconv.ParseInt(string(row[9]), 10, 64)
		ago, err2 := strconv.ParseInt(string(row[10]), 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		b.queryStart, b.queryAgo = time.UnixMicro(start), max(0, time.Duration(ago)*time.Microsecond)
	}
	s.backends = append(s.backends, b)
	return nil
}

// join gives each socket its backend: the one of the same client address and
// port, when the socket's own port is the instance's. Another cluster may use the
// same port on another address; then the owner decides, if it can be seen.
func (s *sessions) join(rows []row) {
	byClient := make(map[netip.AddrPort][]int)
	for i := range rows {
		if rows[i].Local.Port() == s.port {
			byClient[rows[i].Remote] = append(byClient[rows[i].Remote], i)
		}
	}
	for i := range s.backends {
		b := &s.backends[i]
		places := byClient[b.client]
		for _, at := range places {
			if len(places) == 1 || rows[at].ownedBy(b.pid) {
				rows[at].backend = b
			}
		}
	}
}

func (r *row) ownedBy(pid int32) bool {
	return slices.ContainsFunc(r.owners, func(p process) bool { return p.PID == int(pid) })
}
