// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// enableTLS lets an instance speak TLS too and returns the file of its authority.
func (w *world) enableTLS(p *agenttest.Postgres) (rootcert string) {
	w.Helper()
	rootcert, err := p.EnableTLS()
	w.must(err)
	return rootcert
}

// overTLS opens connections through the client's conmgr, encrypted end to end.
func (w *world) overTLS(port int) func() *app {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres connect_timeout=5 sslmode=require", port))
	w.must(err)
	cfg.DialFunc = w.client.Dial
	return func() *app {
		w.Helper()
		var conn *pgx.Conn
		w.expect("a TLS connection", func() (ok bool) {
			conn, err = pgx.ConnectConfig(w.Context(), cfg)
			return err == nil
		})
		return w.adopt(conn)
	}
}
