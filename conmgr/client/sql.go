// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenDB is sql.Open of pgx's driver through conmgr. Options come from
// pgx/stdlib; BeforeConnect and ResetSession are set to ours, which others call
// from their own with stdlib.OpenDB.
func OpenDB(connString string, options ...stdlib.OptionOpenDB) (*sql.DB, error) {
	return std.OpenDB(connString, options...)
}

// OpenDB is sql.Open of pgx's driver through conmgr; see the function of this
// name.
func (d *Dialer) OpenDB(connString string, options ...stdlib.OptionOpenDB) (*sql.DB, error) {
	cfg, err := ParseConfig(connString)
	if err != nil {
		return nil, err
	}
	from := originOf(cfg)
	before := func(ctx context.Context, c *pgx.ConnConfig) error { return d.prepare(ctx, c, from) }
	options = append(options[:len(options):len(options)],
		stdlib.OptionBeforeConnect(before), stdlib.OptionResetSession(ResetSession))
	return stdlib.OpenDB(*cfg, options...), nil
}

// ResetSession is the hook for stdlib.OptionResetSession: a connection that a
// fault has closed is not used again.
func ResetSession(_ context.Context, conn *pgx.Conn) error {
	if isLost(conn) {
		return driver.ErrBadConn
	}
	return nil
}
