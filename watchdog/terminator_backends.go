// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// readSQL lists the sessions of a client address and what is needed to judge
// them, in one statement in which no function acts. It always gives a row, so
// that "nobody is there" and "I am not allowed to see" are different answers:
// pg_stat_activity hides addresses from a role without pg_read_all_stats
// (HAS_PGSTAT_PERMISSIONS in pgstatfuncs.c).
//
// backend_start is the identity of a session beside its pid, in µs.
const readSQL = `SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8,
 pg_catalog.pg_backend_pid(),
 pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')::pg_catalog.text,
 a.pid, (extract(epoch FROM a.backend_start) * 1000000)::pg_catalog.int8,
 a.usename, a.client_port, a.backend_type, COALESCE(r.rolsuper, false)::pg_catalog.text,
 pg_catalog.host(a.client_addr)
FROM (SELECT 1) one
LEFT JOIN pg_catalog.pg_stat_activity a ON a.client_addr = ANY ($1::pg_catalog.inet[])
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid`

// killSQL ends one session. It stands alone on purpose: in a WHERE clause
// PostgreSQL may evaluate the function before the address is compared and end
// strangers, and one superuser among the rows would abort the whole statement.
const killSQL = `SELECT pg_catalog.pg_terminate_backend($1)`

const (
	readColumns = 10
	oidInt4     = 23
	// maxBackends bounds what one answer may fill; PostgreSQL allows 262143
	// connections (MAX_BACKENDS).
	maxBackends = 1 << 18
)

var (
	// ErrBlind says that the agent's role cannot see the addresses of sessions.
	ErrBlind = errors.New("the agent's role sees no client addresses: GRANT pg_read_all_stats TO it")
	errOddly = errors.New("unexpected answer")
)

// backend is one database session as pg_stat_activity shows it.
type backend struct {
	pid       int32
	start     time.Time // backend_start
	user      string
	port      int32 // client_port; -1 is a Unix socket
	kind      string
	superuser bool
	addr      string // client_addr, as the instance shows it
}

// sessionKey tells a session from a later one with the same pid.
type sessionKey struct {
	pid   int32
	start int64 // µs since the Unix epoch
}

func (b *backend) key() sessionKey { return sessionKey{b.pid, b.start.UnixMicro()} }

// snapshot is one answer to readSQL.
type snapshot struct {
	db       time.Time // the database's clock
	self     int32     // the asking session
	backends []backend
}

// inetArray is the address in the forms in which PostgreSQL may show it: an
// IPv4 client of a dual-stack listener is IPv4-mapped. pg_stat_activity drops
// the scope of link-local addresses (clean_ipv6_addr).
func inetArray(a netip.Addr) string {
	a = bareAddr(a)
	if a.Is4() {
		return "{" + a.String() + ",::ffff:" + a.String() + "}"
	}
	return "{" + a.String() + "}"
}

// Names of the prepared statements.
const (
	readName = "sessions"
	killName = "terminate"
)

// prepare readies a new connection: what can be done before a client dies does
// not have to be done after. Both statements are parsed and planned once for all,
// and one empty look fills the session's caches of the catalogs.
func prepare(ctx context.Context, conn *pgconn.PgConn) error {
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan").ReadAll(); err != nil {
		return fmt.Errorf("set plan_cache_mode: %w", err)
	}
	for _, s := range []struct {
		name, sql string
		oids      []uint32
	}{{readName, readSQL, nil}, {killName, killSQL, []uint32{oidInt4}}} {
		if _, err := conn.Prepare(ctx, s.name, s.sql, s.oids); err != nil {
			return fmt.Errorf("prepare %s: %w", s.name, err)
		}
	}
	// An odd answer, or no right to see, is told by the look that matters.
	if _, err := readBackends(ctx, conn, netip.IPv4Unspecified()); err != nil && conn.IsClosed() {
		return fmt.Errorf("look at the sessions: %w", err)
	}
	return nil
}

// readBackends asks for the sessions of an address, on a prepared connection.
func readBackends(ctx context.Context, conn *pgconn.PgConn, a netip.Addr) (snapshot, error) {
	reader := conn.ExecPrepared(ctx, readName, [][]byte{[]byte(inetArray(a))}, nil, nil)
	var snap snapshot
	var odd error
	rows, allowed := 0, false
	for reader.NextRow() {
		if rows++; odd == nil && rows <= maxBackends {
			allowed, odd = snap.add(reader.Values())
		}
	}
	if _, err := reader.Close(); err != nil {
		return snapshot{}, err
	}
	switch {
	case odd != nil:
		return snapshot{}, odd
	case rows == 0 || rows > maxBackends:
		return snapshot{}, fmt.Errorf("%w: %d rows", errOddly, rows)
	case !allowed:
		return snapshot{}, ErrBlind
	}
	return snap, nil
}

// add parses one row. allowed is what the row says about pg_read_all_stats.
func (s *snapshot) add(row [][]byte) (allowed bool, err error) {
	if len(row) != readColumns {
		return false, fmt.Errorf("%w: %d columns", errOddly, len(row))
	}
	now, err1 := parseMicros(row[0])
	self, err2 := parseInt4(row[1])
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	s.db, s.self = now, self
	allowed = string(row[2]) == "true"
	if row[3] == nil {
		return allowed, nil
	}
	b := backend{user: string(row[5]), kind: string(row[7]), superuser: string(row[8]) == "true", addr: string(row[9]), port: -1}
	if b.pid, err = parseInt4(row[3]); err == nil && b.pid <= 0 {
		err = fmt.Errorf("%w: pid %d", errOddly, b.pid)
	}
	if row[6] != nil && err == nil {
		b.port, err = parseInt4(row[6])
	}
	if err != nil {
		return false, err
	}
	if b.start, err = parseMicros(row[4]); err != nil {
		return false, err
	}
	s.backends = append(s.backends, b)
	return allowed, nil
}

func parseInt4(text []byte) (int32, error) {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: %.32q is no number", errOddly, text)
	}
	return int32(n), nil
}

func parseMicros(text []byte) (time.Time, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}, fmt.Errorf("%w: %.32q is no time", errOddly, text)
	}
	return time.UnixMicro(n), nil
}

// killed is what pg_terminate_backend said about one session: err is nil when
// it was signalled, or was gone already.
type killed struct {
	backend backend
	err     error
}

// killBackends signals each of the given sessions, pipelined: one round trip,
// and a Sync behind each statement, so that one error does not skip the rest.
// An error of the connection itself comes back as the second value, with the
// answers that came before it.
func killBackends(ctx context.Context, conn *pgconn.PgConn, targets []backend) ([]killed, error) {
	p := conn.StartPipeline(ctx)
	for _, b := range targets {
		pid := []byte(strconv.Itoa(int(b.pid)))
		p.SendQueryPrepared(killName, [][]byte{pid}, nil, nil)
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	answers := make([]killed, 0, len(targets))
	for _, b := range targets {
		stmtErr, err := killAnswer(p)
		if err != nil {
			return answers, errors.Join(err, p.Close())
		}
		answers = append(answers, killed{b, stmtErr})
	}
	return answers, p.Close()
}

// killAnswer reads up to the next Sync. stmtErr is the statement's own error.
func killAnswer(p *pgconn.Pipeline) (stmtErr, err error) {
	for {
		result, err := p.GetResults()
		if _, isServer := errors.AsType[*pgconn.PgError](err); isServer && !fatal(err) {
			stmtErr = err
			continue
		}
		if err != nil {
			return nil, err
		}
		switch r := result.(type) {
		case *pgconn.ResultReader:
			if _, err := r.Close(); err != nil {
				if _, isServer := errors.AsType[*pgconn.PgError](err); !isServer || fatal(err) {
					return nil, err
				}
				stmtErr = err
			}
		case *pgconn.PipelineSync:
			return stmtErr, nil
		default:
			return nil, fmt.Errorf("%w to pg_terminate_backend: %T", errOddly, result)
		}
	}
}

// fatal reports whether the server ended the connection with this error.
func fatal(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC")
}
