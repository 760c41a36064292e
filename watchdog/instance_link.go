// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// link is the state connection. One step at a time uses it; it has no lock.
type link struct {
	options  ConnectOptions
	conn     *pgconn.PgConn
	settings settingsReader
	loadUS   int64          // pg_conf_load_time of the settings that were read
	readOnly *bool          // see ServerSettings
	pid      *atomic.Uint32 // of conn, 0 while there is none; the monitor's
}

// step is one round: connect if need be, check, and read the settings when they
// were loaded anew.
type step struct {
	timeout time.Duration // for each of connecting and checking
	reread  bool          // read the settings in any case
	release bool          // the instance waits for its clients: go, if no other is left
}

// outcome is what a step found. The receiver owns postmaster and closes it.
type outcome struct {
	seen       observation
	err        error // of connect or check; seen is valid without one
	connected  *connected
	settings   *ServerSettings
	settingErr error
	released   bool
}

// connected tells of a new connection.
type connected struct {
	rights        Rights
	role          string
	postmaster    *postmaster // nil with postmasterErr
	postmasterErr error
	dataDirectory string // empty when the role may not read it
}

// run does the step. A connection that breaks or does not answer is tried anew at
// once, so that an end to the agent's own backend says nothing about the instance.
func (l *link) run(ctx context.Context, s step) outcome {
	held := l.conn != nil
	out := l.try(ctx, s)
	if out.err != nil && held && l.conn == nil && ctx.Err() == nil {
		out = l.try(ctx, s)
	}
	return out
}

func (l *link) try(ctx context.Context, s step) (out outcome) {
	if l.conn == nil {
		if out.connected, out.err = l.open(ctx, s.timeout); out.err != nil {
			return out
		}
	}
	checkCtx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	out.seen, out.err = check(checkCtx, l.conn)
	if out.err == nil && (s.reread || out.seen.loadUS != l.loadUS) {
		out.settings, out.settingErr = l.readSettings(checkCtx, out.seen.loadUS)
	}
	if out.err == nil && l.readOnly != nil {
		out.seen.readOnly = *l.readOnly
	}
	if out.err == nil && s.release {
		out.released = l.alone(checkCtx)
	}
	if out.released || l.conn.IsClosed() {
		l.close()
	}
	return out
}

func (l *link) open(ctx context.Context, timeout time.Duration) (*connected, error) {
	options := l.options
	options.Timeout = timeout
	conn, err := Connect(ctx, options)
	if err != nil {
		return nil, err
	}
	l.conn, l.loadUS, l.readOnly = conn, 0, nil
	l.pid.Store(conn.PID())
	c, err := l.introduce(ctx, timeout)
	if err != nil {
		l.close()
		return nil, err
	}
	c.postmaster, c.postmasterErr = openPostmaster(conn.Conn())
	return c, nil
}

// introduce prepares the check and asks what does not change while connected.
func (l *link) introduce(ctx context.Context, timeout time.Duration) (*connected, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := l.conn.Prepare(ctx, checkName, checkSQL, nil); err != nil {
		return nil, fmt.Errorf("prepare the state check: %w", err)
	}
	rights, err := ProveRights(ctx, l.conn)
	if err != nil {
		return nil, err
	}
	rows, err := queryTexts(ctx, l.conn, 2, `SELECT current_user::pg_catalog.text,
 CASE WHEN $1::pg_catalog.bool THEN pg_catalog.current_setting('data_directory') END`, fmt.Sprint(rights.ReadAllSettings))
	if err != nil {
		return nil, fmt.Errorf("read data_directory: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 2 || rows[0][0] == nil {
		return nil, fmt.Errorf("read data_directory: %w", errOdd)
	}
	c := &connected{rights: rights, role: *rows[0][0]}
	if rows[0][1] != nil {
		c.dataDirectory = *rows[0][1]
	}
	l.settings = settingsReader{conn: l.conn, rights: rights}
	return c, nil
}

func (l *link) readSettings(ctx context.Context, loadUS int64) (*ServerSettings, error) {
	settings, err := l.settings.read(ctx)
	if err != nil {
		return nil, err
	}
	l.loadUS, l.readOnly = loadUS, settings.readOnly
	return settings, nil
}

// alone reports whether the agent's sessions are the last that a smart shutdown
// waits for. In doubt it is not.
func (l *link) alone(ctx context.Context) bool {
	rows, err := queryTexts(ctx, l.conn, 2, `SELECT pg_catalog.count(*)::pg_catalog.text FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND NOT (usename = current_user AND application_name ILIKE 'pgwatchdog%')`)
	return err == nil && len(rows) == 1 && len(rows[0]) == 1 && rows[0][0] != nil && *rows[0][0] == "0"
}

// close gives the connection up, waiting for nobody.
func (l *link) close() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = l.conn.Close(ctx)
	l.conn = nil
	l.pid.Store(0)
}

// checkDSN reports a dsn that can never work.
func (l *link) checkDSN() (network, address string, err error) {
	config, err := l.options.parse()
	if err != nil {
		return "", "", err
	}
	if config.Host == "" {
		return "", "", errors.New("dsn: expected a host or a socket directory")
	}
	network, address = pgconn.NetworkAddress(config.Host, config.Port)
	return network, address, nil
}
