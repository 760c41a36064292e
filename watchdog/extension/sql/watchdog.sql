-- SPDX-License-Identifier: Apache-2.0
-- What the extension has, what it shows, and that nothing remains of it. The test
-- has laid out what an agent tells: three sessions and three events.
CREATE EXTENSION watchdog;

-- The seed's four columns come first, with its types.
SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a WHERE a.attrelid = 'pgx_stat_watchdog'::regclass AND a.attnum > 0 ORDER BY a.attnum;
SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a WHERE a.attrelid = 'pgx_watchdog_events'::regclass AND a.attnum > 0 ORDER BY a.attnum;

-- Seconds are rounded up, milliseconds exact.
SELECT conmgr_addr, conmgr_port, heartbeat_interval, heartbeat_timeout, heartbeat_interval_ms, heartbeat_timeout_ms
FROM pgx_stat_watchdog ORDER BY conmgr_port;
SELECT state, transport, authenticated, protected, kills, session, conmgr_id FROM pgx_stat_watchdog ORDER BY conmgr_port;
SET TimeZone = 'UTC';
SET DateStyle = 'SQL, DMY'; -- of no matter to what is read
SELECT to_char(armed_since, 'YYYY-MM-DD HH24:MI:SS.US') AS armed_since, to_char(last_heard, 'YYYY-MM-DD HH24:MI:SS.US') AS last_heard,
	rtt_ms, received, lost, sent, sent_lost, loss_percent, as_of BETWEEN now() - interval '1 min' AND clock_timestamp() AS fresh
FROM pgx_stat_watchdog ORDER BY conmgr_port;

SELECT seq, event, client_addr, outcome, cause, reason, silence_ms, backends, ended, survivors, spared, newer, pids, dry_run
FROM pgx_watchdog_events ORDER BY seq;
SELECT event_time = last_heard + interval '2 s' AS in_time, evidence, sockets_destroyed, sockets_text, steps_ms, warrant, session, conmgr_id
FROM pgx_watchdog_events WHERE seq = 2;
-- Why was my session terminated?
SELECT client_addr, cause, s.* FROM pgx_watchdog_events, jsonb_to_recordset(survivor_list) AS s(pid int, "user" text, why text)
WHERE 4711 = ANY (pids);
SELECT error FROM pgx_watchdog_events WHERE error IS NOT NULL;

-- Who may do what.
SELECT p.proname, p.prosecdef, p.proconfig, p.provolatile, array_agg(a.grantee::regrole::text ORDER BY 1) AS may_execute
FROM pg_proc p, aclexplode(p.proacl) a WHERE p.proname LIKE 'pgx_watchdog%' GROUP BY 1, 2, 3, 4 ORDER BY 1;
SELECT c.relname, array_agg(a.grantee::regrole::text ORDER BY 1) AS may_select
FROM pg_class c, aclexplode(c.relacl) a WHERE c.relname ~ '^pgx.*watchdog' AND a.privilege_type = 'SELECT' GROUP BY 1 ORDER BY 1;

-- Every object is the extension's own, and goes with it.
SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'watchdog');
DROP EXTENSION watchdog;
SELECT relname FROM pg_class WHERE relname ~ '^pgx' UNION ALL SELECT proname FROM pg_proc WHERE proname ~ '^pgx'
UNION ALL SELECT typname FROM pg_type WHERE typname ~ '^_?pgx';

-- In a schema of its own.
CREATE SCHEMA monitoring;
CREATE EXTENSION watchdog SCHEMA monitoring;
SELECT count(*) FROM monitoring.pgx_stat_watchdog;
ALTER EXTENSION watchdog SET SCHEMA public;
DROP SCHEMA monitoring;
DROP SCHEMA monitoring CASCADE;
