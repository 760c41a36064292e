// SPDX-License-Identifier: Apache-2.0

// Package watchdog is the agent on the database host: it answers the heartbeats
// of conmgr processes, tells them with every beat what the instance is now, and
// ends the database sessions of a client host that is gone.
//
// # Parts
//
//	[Config]      parameters: postgresql.conf, pgwatchdog.conf, flags
//	[Monitor]     the state connection: what the instance is now
//	[Docket]      pure policy: sessions that ended become warrants
//	[Terminator]  executes warrants over its own connection, and in the kernel
//	publisher     tells the SQL extension (extension/) what it shows
//
// # Termination
//
// A warrant ends what a client address has with this instance since before the
// verdict, in this order (see [Terminator]):
//
//	look       was the host heard later than its last frame plus one interval, on
//	           any TCP socket? Then it lives, and watchdog.on_hang decides
//	sockets    find those at the instance's addresses and port, and at
//	           watchdog.ports; destroy them, until a look finds none
//	terminate  pg_terminate_backend for each session, by pid and backend_start; for
//	           superusers' sessions, which the agent's role may not end, a function of
//	           the SQL extension, where the role was granted it
//	verify     until none is left, or name the survivors
//	record     one line in the log and one event
//
// The socket step touches only what the host has said nothing on since the
// verdict, at addresses that are both in listen_addresses and listened on. It
// spares replication where its backend is spared, the agent's own connections and
// heartbeats. It wakes backends that wait for a dead client, and is what ends
// clients of a pooler; busy backends need the database steps, and these alone know
// which session of a living host is old. Without CAP_NET_ADMIN it is left out.
//
// # Parameters
//
// The watchdog.* parameters stand in postgresql.conf and are read from the
// instance with current_setting, in rising rank: default, postgresql.conf,
// pgwatchdog.conf, flag. The agent runs beside PostgreSQL, so
//
//   - do not add watchdog to shared_preload_libraries: there is no such library,
//     and the instance would not start;
//   - do add 2 to max_connections, for the agent's two kept connections;
//   - let LimitNOFILE of the agent be above 64 + watchdog.max_heartbeat_connections.
//
// PostgreSQL takes any name and any text for them, so the agent checks: a bad
// value is an ERROR that names the file, and the default is used at start, the old
// value at run time. A plain number is seconds, but milliseconds for
// watchdog.check_attr_interval. An empty string counts as not set. Settings of ALTER ROLE and ALTER DATABASE do not count, and are warned of:
// otherwise whoever owns the agent's database could change whom it kills. The file
// and line, misspelt names, and the server's value behind such a setting can be
// seen only by a role that may read pg_file_settings, as role.sql grants it.
//
// The names watchdog.check_status_interval and watchdog.max_hb_connections, which
// version 13 of the seed product uses, are taken for watchdog.check_attr_interval
// and watchdog.max_heartbeat_connections.
//
// # Rights in the database
//
// The agent's role needs LOGIN, pg_monitor (addresses of other users' sessions,
// data_directory) and pg_signal_backend; no superuser. The script role.sql makes it
// and says what each right is for. A missing right is one line in the log and never
// stops heartbeats. With the dsn of a Unix socket the agent learns the postmaster's
// pid and sees its death in milliseconds; with the right to read the data directory
// (group access, or CAP_DAC_READ_SEARCH) it sees a promotion at once, else by
// checking every 50 ms while a conmgr waits for one.
//
// # What the database shows
//
// CREATE EXTENSION watchdog makes the views pgx_stat_watchdog, a row for each armed
// session, and pgx_watchdog_events. The agent writes what they show to two files in
// [DefaultRunDir], within a second of a change, and the server reads them: nothing is
// written to the database, so that a standby shows its own. Without the extension
// nobody reads the files, which does no harm.
package watchdog
