// SPDX-License-Identifier: Apache-2.0

// Package libpq tests direct mode for programs that use libpq or ECPG: with
// libconmgr (conmgr/libpq) loaded before it, each of them goes straight to the
// instance that conmgr names and gets an error at once when that is lost.
//
//	client                                    db1, db2: primary and standby
//	  psql, pgbench, psycopg2, DBD::Pg, ... ---------^
//	  programs of conmgr/libpq/tests/programs        |
//	      \__ libconmgr -> conmgr's mark             |
//	                       conmgr <---- heartbeats --+
//
// Every program runs three times: blocked in a statement, idle, and idle in a
// transaction. It prints a line when it notices that its connection is broken; when
// that line comes is what is measured. Programs that look at their connection
// only when they need it wait for a line on their stdin before.
//
// What the programs are doing is seen in pg_stat_activity of the primary, by
// application_name.
package libpq
