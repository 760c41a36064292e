// SPDX-License-Identifier: Apache-2.0

// Package conmgr is the client daemon: it knows what each instance is, tells
// applications which one to use, and tells them at once when it is lost.
//
// # Console
//
// The console speaks the PostgreSQL frontend/backend protocol, version 3.0 to
// 3.2, on the application port (TCP), on the abstract Unix socket
// \0pgconmgr:PORT (the port's mark), and on conmgr.sock in the directory of
// conmgr (mode 0600, outside max_connections). The database is conmgr, any
// user, no password. Encryption is declined. The simple and the extended
// protocol, text and binary results work; commands take no parameters. What
// follows is an interface that drivers build on: names, types, order,
// SQLSTATEs and the payload change only by addition at the end.
//
// Columns are text (OID 25) or, where marked, int8 (OID 20) or float8 (OID
// 701). An unknown text is empty, an unknown number is NULL. Times are RFC 3339 in UTC with
// milliseconds.
//
//	SHOW STATUS        status, pid int8, started, version, applications int8,
//	                   instances int8
//	SHOW INSTANCES     number int8, host, hostaddr, port int8, monitoring,
//	                   heartbeat, attribute, status, read_only, timeline int8,
//	                   wal, system_identifier, rtt_ms float8,
//	                   heard_ms int8, lost int8, received int8, reason, why,
//	                   kills
//	SHOW APPLICATIONS  id int8, kind, addr, port int8, pid int8, uid int8,
//	                   target, instance int8, host, connected, state
//	SHOW CONFIG        name, value, file, default, context
//	SHOW EVENTS        at, kind, instance int8, reason, silence_ms int8,
//	                   applications int8, detail
//	SHOW STATS         name, value int8
//	SHOW VERSION       version
//	SHOW HELP          command, description
//	TARGET attribute [INSTANCE number]
//	                   number int8, host, hostaddr, port int8, attribute
//	SHUTDOWN mode      nothing; mode is smart, fast, immediate or restart;
//	                   on conmgr.sock only
//
// In SHOW INSTANCES monitoring is unknown, monitored, unmonitored, faulted or
// foreign; heartbeat is down, init, up, late or suspect; attribute is primary,
// standby or unknown; status is up, down, unresponsive or unknown; read_only is
// on, off or, while that was never heard, empty; wal is printed as pg_lsn is;
// rtt_ms has three decimals; heard_ms is the age of the last valid heartbeat;
// kills, of lost clients' sessions by the instance's agent, is enabled, paused, dry
// run or, while unknown, empty. What is known of a faulted instance, its status
// aside, is what was heard last.
//
// In SHOW APPLICATIONS kind is console, passthrough or proxy. Only conmgr's own
// user, root and sessions on conmgr.sock see the rows of other users.
//
// TARGET takes any, read-write, read-only, primary, standby, prefer-standby or
// prefer-read and answers the instances that have the attribute, best first.
// It binds the session to the first one; a later TARGET binds it anew. With
// INSTANCE only that one is answered and bound to, for an application that goes
// on to it because a better one did not take it. When the instance bound to is
// lost, the session gets
//
//	NotificationResponse  channel conmgr_fault, payload
//	                      {"instance":1,"host":"db1","hostaddr":"192.0.2.1",
//	                       "port":5432,"reason":"timeout","silence_ms":1500}
//	ErrorResponse         FATAL 57P01
//
// and is closed. When conmgr itself ends, every session gets the same with
// instance null and the reason stop or restart; after restart conmgr comes back
// within seconds.
//
// SQLSTATEs:
//
//	08P01  a message or startup packet that breaks the protocol
//	0A000  a protocol version that is not 3.x
//	22023  TARGET with an unknown attribute
//	25P02  a command in a failed transaction
//	28000  no user name in the startup packet
//	3D000  a database other than conmgr on the mark or conmgr.sock; the hint names
//	       the TCP ports that lead to databases
//	42501  SHUTDOWN elsewhere than on conmgr.sock
//	42601  unknown command; the hint names SHOW HELP
//	53400  too many prepared statements or portals
//	55000  SHUTDOWN that could not be begun
//	57P01  the instance is lost, or conmgr ends: the session is closed
//	57P03  conmgr is ending and takes no new sessions
//	58C01  TARGET: no instance has the attribute, the message says the state
//	       of each; or the one that was named has not
//
// Besides, the console survives what drivers send unasked: empty queries and
// comments, SET, RESET, BEGIN, COMMIT, ROLLBACK, SAVEPOINT, DISCARD,
// DEALLOCATE, LISTEN, UNLISTEN, CLOSE ALL, SHOW of the usual parameters,
// SELECT 1, version(), pg_is_in_recovery() and the like.
//
// # Proxy mode
//
// A session on the application port (TCP) for any other database than conmgr is
// passed on to the best instance that has proxy_target_session_attrs. The client
// asks for another target with the startup option conmgr.target_session_attrs, in
// options (-c name=value, -cname=value, --name=value, with the escapes of
// PostgreSQL) or as a parameter of its own; the instance does not see that option.
// All else of the first packet passes byte by byte, protocol version and _pq_.
// parameters included, so the instance negotiates these.
//
//	first packet -> connecting -> TLS or clear text -> passing bytes -> closed
//	                    ^  |  next candidate  |
//	                    +--+------------------+
//
// conmgr encrypts its own hop to the instance as proxy_sslmode says (SSLMode). The
// hop of the client is local and in clear text: encryption is declined (N), so
// sslmode=require and more fail there; pass-through ports serve those. For the same
// reason mechanisms with channel binding are taken out of what the instance offers
// over TLS; scram-sha-256 works without. conmgr has no client certificate.
//
// conmgr learns the session's key from BackendKeyData, and a cancel request with
// that key takes the same way to the same instance, TLS included; after 5 s it is
// given up. Any other is closed without an answer, as in PostgreSQL. After that, and when an instance is lost, all is as in pass-through.
//
// What conmgr itself says to such a client are FATAL errors before the instance has
// said anything; what comes later comes from the instance:
//
//	08P01, 0A000, 28000  as above
//	22023                conmgr.target_session_attrs with an unknown target
//	28000                also: the peer is neither loopback nor in proxy_allow
//	42601                conmgr.target_session_attrs without a value
//	57P03                conmgr is ending, or no instance has the attribute or took
//	                     the connection; the message says the state of each
//
// # Pass-through
//
// A port of proxy_listen passes bytes blindly to the best instance of its
// target. An application costs two descriptors and, while it is idle, no
// buffer. When its instance is lost both sides are closed: with RST where bytes
// were under way, else with FIN. When there is no instance, the client gets FATAL
// 57P03 with the state of each; encryption is declined before, so a client with
// sslmode=require only learns that. A cancel request is a connection of its own and
// reaches the instance that is best at that moment. Peers that are neither loopback
// nor in proxy_allow are closed.
package conmgr
