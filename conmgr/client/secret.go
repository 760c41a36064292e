// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// origin is where the password of a configuration can have come from. Pools work
// it out once.
type origin struct {
	written string // in the string, the environment or a service file
	found   string // what pgx makes of the string, the password file included
}

func originOf(cfg *pgx.ConnConfig) *origin {
	o := &origin{}
	if c, err := pgconn.ParseConfig(override(cfg.ConnString(), "passfile", os.DevNull)); err == nil {
		o.written = c.Password
	}
	if o.written == "" {
		if c, err := pgconn.ParseConfig(cfg.ConnString()); err == nil {
			o.found = c.Password
		}
	}
	return o
}

// secret returns the password for an instance: that of the configuration, or, when
// pgx has looked that up in the password file under the name of the conmgr, the
// entry of the instance.
func (o *origin) secret(cfg *pgx.ConnConfig, in Instance) string {
	if o.written != "" || cfg.Password != o.found { // written somewhere, or set by the program
		return cfg.Password
	}
	entry, err := parseFor(cfg, in)
	if err != nil {
		return cfg.Password
	}
	return entry.Password
}

// parseFor is what pgx makes of the connection string when the instance stands in
// it.
func parseFor(cfg *pgx.ConnConfig, in Instance) (*pgconn.Config, error) {
	return pgconn.ParseConfig(override(cfg.ConnString(), "host", in.Name(), "port", portText(in.Port)))
}

// variantsFor returns the variants of TLS for an instance of a conmgr: those of
// the conmgr's host and port with the instance's name in them. For a directory
// of Unix sockets pgx has made none; they are made as for the instance's host.
func (t *destination) variantsFor(cfg *pgx.ConnConfig, in Instance) ([]*pgconn.FallbackConfig, error) {
	if !filepath.IsAbs(t.host) {
		list := make([]*pgconn.FallbackConfig, len(t.variants))
		for i, v := range t.variants {
			list[i] = &pgconn.FallbackConfig{TLSConfig: rename(v.TLSConfig, t.host, in.Name())}
		}
		return list, nil
	}
	entry, err := parseFor(cfg, in)
	if err != nil {
		return nil, err
	}
	return destinationsOf(entry)[0].variants, nil
}

// rename makes a TLS configuration for another host. A server name that the
// program has chosen stays.
func rename(c *tls.Config, from, to string) *tls.Config {
	if c == nil || c.ServerName != from {
		return c
	}
	c = c.Clone()
	c.ServerName = to
	if c.InsecureSkipVerify && net.ParseIP(to) != nil {
		c.ServerName = "" // as pgx does: it would be for SNI only
	}
	return c
}
