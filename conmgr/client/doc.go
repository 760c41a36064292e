// SPDX-License-Identifier: Apache-2.0

// Package client is direct mode for Go: pgx, pgxpool and database/sql ask conmgr
// which instance to use, connect to it without a hop, and are told at once when
// it is lost.
//
// # Use
//
// The connection string is an ordinary one that names the port of conmgr; one
// call replaces that of pgx:
//
//	conn, err := client.Connect(ctx, "host=localhost port=27546 dbname=app target_session_attrs=read-write")
//	pool, err := client.NewPool(ctx, "postgres://app@localhost:27546/app?target_session_attrs=primary")
//	db, err := client.OpenDB("host=localhost port=27546 dbname=app target_session_attrs=standby")
//	db, err := sql.Open("conmgr", "...") // the same, for frameworks
//
// Who makes the configuration himself uses [ConnectConfig], [NewPoolWithConfig],
// [ConfigurePool] or the hooks [BeforeConnect] and [ResetSession]. A [Dialer] has
// the same with options.
//
// # Two steps
//
// The host list may mix conmgrs and postmasters; they are tried in its order.
// A host and port is a conmgr when the host is this one (localhost, a loopback
// address, a directory of Unix sockets) and the port's mark, the abstract Unix
// socket \0pgconmgr:PORT, is held by the own user, by root or by the user that
// the parameter conmgr_user names. The kernel tells the holder, and nothing is
// sent before it is known. A mark of somebody else is as good as none: whoever
// holds it can neither hand out instances nor keep anybody from a postmaster of
// the same port. A host and port without a mark is a postmaster and treated as
// pgx treats it; it gets no packet of ours. A conmgr on another host is one only
// when the parameter conmgr=HOST:PORT names it; conmgr=off looks for none.
// What is named is never taken for a postmaster. The database conmgr is the
// console itself.
//
// Step one asks each conmgr of the list for the instances that have the
// attribute of target_session_attrs (all of libpq's values, and prefer-read, the
// older spelling of prefer-standby). It counts towards connect_timeout, and is
// given up after 5 s, or after 100 ms when the list has a destination before it.
// Step two is pgx with these instances in the place of the conmgr, best first.
// backend_hostaddr is dialled; the host name that a certificate is checked
// against, that stands in the password file and that [pgx.Conn.Config] returns is
// backend_host, or the address when it stands alone, never the conmgr's. Cancel
// requests go to the instance.
//
// # Watch
//
// The session with conmgr stays open for as long as the connection to the
// instance, and one goroutine waits on it. SHOW APPLICATIONS of the console has
// a row for it.
//
//	         asked               connected
//	asking ---------> dialling -------------> watched <---------------+
//	   |                 |                     |   |                  |
//	   | no instance     | lost, refused       |   | conmgr restarts  | the same instance,
//	   v                 v                     |   v                  | within 5 s
//	  the next of the list, or                 | rebinding -----------+
//	  an error of pgx                          |   |
//	                                     fault |   | not so
//	                                           v   v
//	                                           lost
//
// A fault is a loss of the instance, the loss of the role that was asked for,
// and the end of conmgr; its restart (cm_ctl restart) is none, when it comes
// back within 5 s and still offers the instance at the same address. At a fault
// the connection is closed under pgx: a blocked read, a blocked write and the
// next use of an idle connection return a [*FaultError], wrapped as pgx wraps
// what the network returns. Pools discard the connection.
//
//	errors.As(err, &fault)            a *FaultError: instance, reason, silence
//	errors.Is(err, ErrFault)          the same without the details
//	errors.Is(err, ErrConmgrLost)     a fault of conmgr itself, not of the instance
//	errors.Is(err, ErrNoInstance)     connecting: no instance has the attribute now
//	pgconn.SafeToRetry(err)           nothing was sent: the statement can be repeated
//
// The package works on Linux. Elsewhere it compiles, finds no mark, and knows
// only the conmgrs that are named.
package client
