// SPDX-License-Identifier: Apache-2.0

package client

import "testing"

// BenchmarkBeforeConnect is step one: discovery, question, plan.
func BenchmarkBeforeConnect(b *testing.B) {
	f := mustFleet(b, instanceOf(0, mustPostgres(b, nil)))
	cfg, err := ParseConfig(f.dsn())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := BeforeConnect(b.Context(), cfg.Copy()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is both steps with a server that costs nothing, against pgx
// straight to it.
func BenchmarkConnect(b *testing.B) {
	p := mustPostgres(b, nil)
	f := mustFleet(b, instanceOf(0, p))
	for name, dsn := range map[string]string{"direct": f.dsn(), "straight": p.dsn()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				conn, err := Connect(b.Context(), dsn)
				if err != nil {
					b.Fatal(err)
				}
				closeConn(conn)
			}
		})
	}
}
