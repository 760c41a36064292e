// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// destination is one host and port of the list, with its variants of TLS as pgx
// made them from sslmode.
type destination struct {
	host     string
	port     uint16
	variants []*pgconn.FallbackConfig

	// Of a conmgr, once it was asked; nil is a postmaster.
	conmgr  *console
	answers []Instance
	session *session // bound to the first answer; only of the first destination
	err     error    // there is no answer
}

// destinationsOf undoes what pgx does with a list of hosts.
func destinationsOf(cfg *pgconn.Config) []*destination {
	entries := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	var list []*destination
	for _, e := range entries {
		if n := len(list); n > 0 && list[n-1].host == e.Host && list[n-1].port == e.Port {
			list[n-1].variants = append(list[n-1].variants, e)
			continue
		}
		list = append(list, &destination{host: e.Host, port: e.Port, variants: []*pgconn.FallbackConfig{e}})
	}
	return list
}

// is reports whether a name means this destination: host:port, or host alone.
func (t *destination) is(name string) bool { return name == t.host || name == hostPort(t.host, t.port) }

// askAll asks the conmgrs of a list, each after the other, and reports whether
// there is one. Who comes behind a destination that can be tried has little
// time: it must not hold that one up.
func (f *finder) askAll(ctx context.Context, list []*destination, timeout time.Duration) (found bool) {
	limit := askTime
	if timeout > 0 {
		limit = min(limit, timeout)
	}
	for i, t := range list {
		f.ask(ctx, t, limit)
		if t.session != nil && i > 0 { // it may be long until it is dialled, if ever
			t.session.close()
			t.session = nil
		}
		found = found || t.conmgr != nil
		if t.conmgr == nil || t.err == nil {
			limit = min(limit, askTimeBehind)
		}
	}
	return found
}

// ask finds out what a destination is, and which instances a conmgr offers.
func (f *finder) ask(ctx context.Context, t *destination, limit time.Duration) {
	c, named := f.conmgrAt(t)
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, list, err := c.open(ctx, f.target)
	if !named && errors.Is(err, errNoMark) {
		return
	}
	t.conmgr, t.answers, t.session, t.err = c, list, s, err
}
