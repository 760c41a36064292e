// SPDX-License-Identifier: Apache-2.0

// Package drivers tests that unmodified drivers work through conmgr: psql, pgx,
// psycopg2, pgjdbc and node-postgres, in proxy mode and on pass-through ports, to
// instances with and without TLS that ask for a password (scram-sha-256).
//
//	client                         db1, db2: primary and standby, TLS
//	  programs -> conmgr "secure" ----^
//	           -> conmgr "plain" ---> db3, db4: primary and standby, no TLS
//
// Each driver is a small program (testdata, or this test's own binary for Go and
// psql) that is given cases as arguments,
//
//	name,port,sslmode,options
//
// and in the environment DRIVER_USER, DRIVER_PASSWORD, DRIVER_ROOTCERT. It plays all
// cases at once, each on a connection of its own to localhost with application_name
// PROGRAM/name, and writes lines of case, event and detail, separated by tabs:
//
//	ready     after a query, a prepared statement and a cancelled statement; a
//	          statement that takes ten minutes follows
//	lost      that statement ended; the error
//	again     a new connection works; the address of its instance
//	failed    something went wrong; what
//
// A case with options, which ask for a standby, ends with its first line:
//
//	standby   the address of its instance, and whether that is in recovery
package drivers
