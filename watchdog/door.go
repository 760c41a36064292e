// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// sslRequest asks for TLS (src/include/libpq/pqcomm.h, NEGOTIATE_SSL_CODE). It is
// answered with one byte before authentication, and by the very process that the
// postmaster has just started: a postmaster that stands still answers nothing.
// Over a Unix socket the answer is always N, and hanging up then leaves no line in
// the server's log; over TCP a server with TLS logs one at every try.
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// knock reports whether a PostgreSQL answers at the address within timeout. It is
// one connection, closed before knock returns; dial makes it, nil means a plain
// dialer.
func knock(ctx context.Context, dial pgconn.DialFunc, network, address string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return fmt.Errorf("door: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(sslRequest); err != nil {
		return fmt.Errorf("door: ask %s: %w", address, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("door: no answer from %s: %w", address, err)
	}
	// E is an error from a server that could not start a process, or is ancient.
	if c := answer[0]; c != 'N' && c != 'S' {
		return fmt.Errorf("door: expected S or N from %s, found %q", address, c)
	}
	return nil
}
