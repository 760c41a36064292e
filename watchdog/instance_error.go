// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// failure is what a failed connect or check says about the instance.
type failure uint8

const (
	failOurs    failure = iota // something local: no permission, a bad name, the agent stops
	failRefused                // nobody listens there
	failNotYet                 // starting up, shutting down, in crash recovery: 57P03
	failHung                   // no answer in time
	failFull                   // max_connections is exhausted: 53300
	failDenied                 // it lives, but the agent is not let in or may not ask
	failOdd                    // it answered what no PostgreSQL answers
	failLost                   // the connection broke: connecting again will tell
)

// SQLSTATEs that are not the agent's fault (src/backend/utils/errcodes.txt).
const (
	codeTooManyConnections = "53300"
	codeCannotConnectNow   = "57P03"
)

// classify decides what an error means. This is the only place that does.
func classify(err error) failure {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifyPostgres(pgErr)
	}
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errOdd):
		return failOdd
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return failRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, syscall.EAGAIN), pgconn.Timeout(err), isNet && netErr.Timeout():
		return failHung
	case errors.Is(err, context.Canceled):
		return failOurs
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return failLost
	}
	return failOurs
}

func classifyPostgres(err *pgconn.PgError) failure {
	switch {
	case err.Code == codeTooManyConnections:
		return failFull
	case err.Code == codeCannotConnectNow:
		return failNotYet
	case strings.HasPrefix(err.Code, "57P"): // admin_shutdown, crash_shutdown
		return failLost
	}
	return failDenied
}

// Brief writes the error of [Connect] or [Examine] in one line: the driver gives one
// line for each way it tried, most of them alike.
func Brief(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, "server refused TLS connection") || slices.Contains(parts, line) {
			continue // it went on without
		}
		parts = append(parts, line)
	}
	if len(parts) > 1 && strings.HasSuffix(parts[0], ":") {
		parts[1] = parts[0] + " " + parts[1]
		parts = parts[1:]
	}
	return strings.Join(parts, "; ")
}

// Advice says what was expected where the text of such an error alone does not; it
// is empty where it does.
func Advice(err error) string {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if strings.Contains(err.Error(), "password") {
			return "the instance asks for a password: put one into the dsn or a .pgpass file, or let the role in by peer or trust in pg_hba.conf"
		}
		return ""
	}
	switch pgErr.Code {
	case "28000": // invalid_authorization_specification
		return "expected a role of this name with LOGIN, and a line for it in pg_hba.conf"
	case "28P01": // invalid_password
		return "expected a password in the dsn or a .pgpass file, or peer or trust in pg_hba.conf"
	case "3D000": // invalid_catalog_name
		return "expected the database that the dsn names"
	case "42501": // insufficient_privilege
		return "expected a role with pg_monitor and pg_signal_backend"
	case codeTooManyConnections:
		return "add 2 to max_connections, or on PostgreSQL 16 and later set reserved_connections and grant pg_use_reserved_connections"
	}
	return ""
}
