// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// DriverName is what sql.Open knows the package by, for frameworks that want a name.
const DriverName = "conmgr"

func init() { sql.Register(DriverName, sqlDriver{}) }

// sqlDriver is OpenDB for sql.Open.
type sqlDriver struct{}

// Open makes one connection. database/sql calls OpenConnector instead.
func (d sqlDriver) Open(connString string) (driver.Conn, error) {
	c, err := d.OpenConnector(connString)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

// OpenConnector makes connections by a connection string.
func (sqlDriver) OpenConnector(connString string) (driver.Connector, error) {
	return std.connector(connString)
}

// OpenDB is sql.Open of pgx's driver through conmgr. Options come from
// pgx/stdlib; BeforeConnect and ResetSession are set to ours, which others call
// from their own with stdlib.OpenDB.
func OpenDB(connString string, options ...stdlib.OptionOpenDB) (*sql.DB, error) {
	return std.OpenDB(connString, options...)
}

// OpenDB is sql.Open of pgx's driver through conmgr; see the function of this
// name.
func (d *Dialer) OpenDB(connString string, options ...stdlib.OptionOpenDB) (*sql.DB, error) {
	c, err := d.connector(connString, options...)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

func (d *Dialer) connector(connString string, options ...stdlib.OptionOpenDB) (driver.Connector, error) {
	cfg, err := ParseConfig(connString)
	if err != nil {
		return nil, err
	}
	from := originOf(cfg)
	before := func(ctx context.Context, c *pgx.ConnConfig) error { return d.prepare(ctx, c, from) }
	options = append(options[:len(options):len(options)],
		stdlib.OptionBeforeConnect(before), stdlib.OptionResetSession(ResetSession))
	return stdlib.GetConnector(*cfg, options...), nil
}

// ResetSession is the hook for stdlib.OptionResetSession: a connection that a
// fault has closed is not used again.
func ResetSession(_ context.Context, conn *pgx.Conn) error {
	if isLost(conn) {
		return driver.ErrBadConn
	}
	return nil
}
