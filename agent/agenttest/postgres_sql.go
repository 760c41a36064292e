// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Connect opens a superuser connection by the Unix socket: it works while the
// host is cut off.
func (p *Postgres) Connect(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, p.DSN()) }

// Exec runs SQL, several statements if there are no arguments, on a connection
// of its own.
func (p *Postgres) Exec(ctx context.Context, sql string, args ...any) error {
	conn, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql, args...)
	return err
}

// keptConn is the connection that the queries of an instance share, because they
// poll, and a backend for each look would take more time than what is looked for.
type keptConn struct {
	mu   sync.Mutex // guards the following
	conn *pgx.Conn  // nil for none
}

// Query runs one statement, once, and returns its first column's values as text; NULL
// is the empty string. The connection is kept for the next one until Stop: they run one
// after the other.
func (p *Postgres) Query(ctx context.Context, sql string, args ...any) (values []string, err error) {
	p.kept.mu.Lock()
	defer p.kept.mu.Unlock()
	if p.kept.conn == nil || p.kept.conn.Ping(ctx) != nil { // it may have ended since
		if p.kept.conn, err = p.Connect(ctx); err != nil {
			return nil, err
		}
	}
	return firstColumn(ctx, p.kept.conn, sql, args...)
}

// dropKept ends the connection of Query, so that nothing of ours holds the server up
// when it stops.
func (p *Postgres) dropKept(ctx context.Context) {
	p.kept.mu.Lock()
	defer p.kept.mu.Unlock()
	if p.kept.conn != nil {
		_ = p.kept.conn.Close(ctx)
	}
	p.kept.conn = nil
}

// firstColumn does not prepare its statement: what that is about may change.
func firstColumn(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]string, error) {
	args = append([]any{pgx.QueryExecModeExec, pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []string
	for rows.Next() {
		var first string
		if raw := rows.RawValues(); len(raw) > 0 {
			first = string(raw[0])
		}
		values = append(values, first)
	}
	return values, rows.Err()
}
