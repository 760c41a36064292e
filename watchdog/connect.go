// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ConnectOptions says how to reach the instance.
type ConnectOptions struct {
	// DSN is a libpq connection string or URL of exactly one server. Empty means
	// libpq's defaults and environment. The database is postgres unless the DSN
	// names one.
	DSN string
	// ApplicationName is what pg_stat_activity shows; empty means pgwatchdog.
	ApplicationName string
	// Timeout bounds the attempt as a whole; 0 means 2 s.
	Timeout time.Duration
	// Dial connects; nil means a plain dialer.
	Dial pgconn.DialFunc
}

// maxMessage bounds what one message of the instance may make the agent
// allocate. The largest answer it asks for is a page of pg_stat_activity.
const maxMessage = 16 << 20

// parse reads the DSN and adds what every connection of the agent has. The
// settings are sent as startup options, which rank above those of ALTER ROLE and
// ALTER DATABASE; only names that every supported version knows may be among them.
func (o ConnectOptions) parse() (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(o.DSN)
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	for _, f := range config.Fallbacks {
		if f.Host != config.Host || f.Port != config.Port {
			return nil, errors.New("dsn: expected exactly one server, the agent's own instance")
		}
	}
	if config.Database == "" {
		config.Database = "postgres"
	}
	name := o.ApplicationName
	if name == "" {
		name = "pgwatchdog"
	}
	for key, value := range map[string]string{
		"application_name":                    name,
		"search_path":                         "pg_catalog",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
	} {
		config.RuntimeParams[key] = value
	}
	config.MaxProtocolMessageBodyLen = maxMessage
	config.ConnectTimeout = o.timeout()
	if o.Dial != nil {
		config.DialFunc = o.Dial
	}
	return config, nil
}

func (o ConnectOptions) timeout() time.Duration {
	if o.Timeout <= 0 {
		return 2 * time.Second
	}
	return o.Timeout
}

// Connect opens a connection to the instance that is meant to be kept: no
// timeout of the server ends it while it is idle. The caller owns it. It is not
// for concurrent use.
func Connect(ctx context.Context, o ConnectOptions) (*pgconn.PgConn, error) {
	config, err := o.parse()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := keepIdle(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// keepIdle switches off the timeouts that older versions do not know, and would
// refuse to start with: idle_session_timeout since 14, transaction_timeout since 17.
func keepIdle(ctx context.Context, conn *pgconn.PgConn) error {
	version := serverMajor(conn.ParameterStatus("server_version"))
	var sets []string
	if version >= 14 {
		sets = append(sets, "SET idle_session_timeout = 0")
	}
	if version >= 17 {
		sets = append(sets, "SET transaction_timeout = 0")
	}
	if len(sets) == 0 {
		return nil
	}
	if _, err := conn.Exec(ctx, strings.Join(sets, "; ")).ReadAll(); err != nil {
		return fmt.Errorf("switch off idle timeouts: %w", err)
	}
	return nil
}

// serverMajor returns 15 for "15.18 (Debian 15.18-0+deb12u1)" and "15beta1", and
// 0 for what is no version.
func serverMajor(version string) int {
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits >= 0 {
		version = version[:digits]
	}
	n, _ := strconv.Atoi(version)
	return n
}

// queryTexts runs one statement and returns its rows as texts; a NULL is nil. It
// refuses more rows than limit, so that an odd catalog cannot fill memory.
func queryTexts(ctx context.Context, conn *pgconn.PgConn, limit int, sql string, args ...string) ([][]*string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	reader := conn.ExecParams(ctx, sql, params, nil, nil, nil)
	var rows [][]*string
	for reader.NextRow() {
		if len(rows) < limit {
			rows = append(rows, textRow(reader.Values()))
		}
	}
	_, err := reader.Close()
	if err == nil && len(rows) == limit {
		err = fmt.Errorf("expected fewer than %d rows", limit)
	}
	return rows, err
}

func textRow(values [][]byte) []*string {
	row := make([]*string, len(values))
	for i, v := range values {
		if v != nil {
			row[i] = new(string(v))
		}
	}
	return row
}
