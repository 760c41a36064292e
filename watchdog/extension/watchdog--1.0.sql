-- SPDX-License-Identifier: Apache-2.0
--
-- The extension watchdog: what pgwatchdog, which runs beside this instance, knows
-- and did. SQL only: there is no library, and nothing to preload. Valid for
-- PostgreSQL 13 to 18.
--
-- pgwatchdog writes two files below /run/pgconmgr, which the functions here read.
-- Their names are made of the data directory, the one setting that tells the
-- instances of a host apart and that only the start of the server sets: a user can
-- set watchdog.* to anything. Nothing is written, so all of it works on a standby.
--
-- Names are qualified, or looked up in pg_catalog alone: the schema of the
-- extension may hold objects of other users.

\echo Use "CREATE EXTENSION watchdog" to load this file. \quit

SET LOCAL search_path = pg_catalog, pg_temp;

CREATE FUNCTION @extschema@.pgx_watchdog_read(part text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	-- The bytes of the setting, whatever the encoding of this database.
	base CONSTANT text := '/run/pgconmgr/' || left(encode(sha256(
		convert_to(current_setting('data_directory'), getdatabaseencoding())), 'hex'), 32);
	largest CONSTANT int := 64 * 1024 * 1024;
	life timestamptz; -- last sign of it
	file record;
	content text;
	doc jsonb;
BEGIN
	IF part NOT IN ('sessions', 'events') THEN
		RAISE EXCEPTION 'part of what pgwatchdog tells: expected sessions or events'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	BEGIN
		SELECT s.modification INTO life FROM pg_stat_file(base || '.sessions.json', true) AS s;
		SELECT s.size, s.isdir INTO file FROM pg_stat_file(base || '.' || part || '.json', true) AS s;
		-- No FIFO, which would block, no device: their size is 0.
		IF file.size > 0 AND file.size <= largest AND NOT file.isdir THEN
			content := convert_from(pg_read_binary_file(base || '.' || part || '.json', 0, largest, true), 'UTF8');
		END IF;
	EXCEPTION
		WHEN character_not_in_repertoire OR untranslatable_character THEN
			content := NULL;
		WHEN OTHERS THEN
			RAISE NOTICE 'cannot read what pgwatchdog tells: %', SQLERRM;
			RETURN NULL;
	END;
	IF life IS NULL OR clock_timestamp() - life > interval '5 seconds' THEN
		RAISE NOTICE 'pgwatchdog has told nothing for more than 5 seconds'
			USING HINT = 'Does it run beside this instance? It may have to be told where the instance is, or need the right to write to /run/pgconmgr: see its log, and agentctl doctor.';
		IF part = 'sessions' THEN
			RETURN NULL;
		END IF;
	END IF;
	IF file.size IS NULL THEN
		RETURN NULL; -- nothing was told yet
	END IF;
	-- The file is ASCII. Other characters are escaped, and there may be no such
	-- character in the encoding of this database.
	IF getdatabaseencoding() <> 'UTF8' THEN
		content := regexp_replace(content, E'\\\\u(?!00[0-7])[0-9a-f]{4}', '?', 'g');
	END IF;
	BEGIN
		doc := coalesce(content, '')::jsonb;
	EXCEPTION WHEN OTHERS THEN
		-- Not a word of it: it may be another file.
		RAISE NOTICE 'what pgwatchdog tells is damaged';
		RETURN NULL;
	END;
	IF (doc ->> 'postmaster_start_us') IS DISTINCT FROM
		((extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint)::text THEN
		RAISE NOTICE 'pgwatchdog has not seen this start of the instance yet';
		RETURN NULL;
	END IF;
	RETURN doc;
END
$body$;

REVOKE ALL ON FUNCTION @extschema@.pgx_watchdog_read(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.pgx_watchdog_read(text) TO pg_monitor;
COMMENT ON FUNCTION @extschema@.pgx_watchdog_read(text) IS
	'what pgwatchdog tells of its sessions or events, for the views; NULL with a NOTICE when it tells nothing';

-- A row for each conmgr whose heartbeats pass both ways. The first four columns
-- are those of the seed product.
CREATE VIEW @extschema@.pgx_stat_watchdog AS
SELECT
	s.addr AS conmgr_addr,
	s.port AS conmgr_port,
	(s.interval_ms + 999) / 1000 AS heartbeat_interval,
	(s.timeout_ms + 999) / 1000 AS heartbeat_timeout,
	s.interval_ms AS heartbeat_interval_ms,
	s.timeout_ms AS heartbeat_timeout_ms,
	s.state,
	s.transport,
	s.keyed AS authenticated,
	s.protected,
	d.doc ->> 'kills' AS kills,
	to_timestamp(s.armed_us / 1e6::double precision) AS armed_since,
	to_timestamp(s.heard_us / 1e6::double precision) AS last_heard,
	s.rtt_us / 1e3::double precision AS rtt_ms,
	s.received,
	s.lost,
	s.sent,
	s.sent_lost,
	round(100.0 * s.lost / nullif(s.received + s.lost, 0), 2) AS loss_percent,
	s.session,
	s.conmgr AS conmgr_id,
	to_timestamp((d.doc ->> 'as_of_us')::bigint / 1e6::double precision) AS as_of
FROM @extschema@.pgx_watchdog_read('sessions') AS d(doc),
	LATERAL jsonb_to_recordset(d.doc -> 'sessions') AS s(
		addr inet, port int, interval_ms int, timeout_ms int, state text, transport text, keyed bool, protected bool,
		armed_us bigint, heard_us bigint, rtt_us bigint, received bigint, lost bigint, sent bigint, sent_lost bigint,
		session bigint, conmgr text);

REVOKE ALL ON @extschema@.pgx_stat_watchdog FROM PUBLIC;
GRANT SELECT ON @extschema@.pgx_stat_watchdog TO pg_monitor;
COMMENT ON VIEW @extschema@.pgx_stat_watchdog IS 'conmgr processes that exchange heartbeats with the pgwatchdog of this instance';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.conmgr_addr IS 'IP address of the conmgr process';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.conmgr_port IS 'its ephemeral port for heartbeats, not port of conmgr.conf';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.heartbeat_interval IS 'interval of heartbeats in seconds, rounded up';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.heartbeat_timeout IS 'silence in seconds, rounded up, after which the client host counts as lost';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.state IS 'up; late: a beat is overdue; suspect: a hint or an own pause makes a silence doubtful';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.transport IS 'tcp or udp';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.authenticated IS 'whether its frames are authenticated with a key';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.protected IS 'whether its address is in watchdog.protect: its sessions are never terminated';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.kills IS 'enabled; paused: by agentctl pause; dry run: by watchdog.dry_run';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.armed_since IS 'when heartbeats had passed both ways; NULL for a protected address';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.last_heard IS 'when its last valid frame came; the silence is as_of - last_heard';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.rtt_ms IS 'round trip of heartbeats, smoothed; NULL while unknown';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.received IS 'frames of this session that came';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.lost IS 'frames of conmgr that did not come';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.sent IS 'frames that were sent to conmgr';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.sent_lost IS 'of these, those that conmgr missed, as it says';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.loss_percent IS 'share of conmgr''s frames that did not come';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.session IS 'number of the heartbeat session, as in the log and in pgx_watchdog_events';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.conmgr_id IS 'lasting identity of the conmgr';
COMMENT ON COLUMN @extschema@.pgx_stat_watchdog.as_of IS 'when pgwatchdog took these figures; of thousands of sessions a few seconds ago, unless a state has changed';

-- What pgwatchdog did and why, the newest two hundred records.
CREATE VIEW @extschema@.pgx_watchdog_events AS
SELECT
	e.seq,
	e.time AS event_time,
	e.kind AS event,
	e.addr AS client_addr,
	e.outcome,
	e."case" AS cause,
	e.reason,
	e.silence_ms,
	e.last_valid_at AS last_heard,
	e.verdict_at AS verdict_time,
	e.evidence,
	coalesce(e.backends, 0) AS backends,
	coalesce(e.ended, 0) AS ended,
	coalesce(e.survivors_total, 0) AS survivors,
	coalesce(e.spared, 0) AS spared,
	coalesce(e.newer, 0) AS newer,
	e.pids,
	e.survivors AS survivor_list,
	coalesce(e.sockets_destroyed, 0) AS sockets_destroyed,
	e.sockets AS sockets_text,
	coalesce(e.dry_run, false) AS dry_run,
	e.steps_ms,
	e.error,
	e.warrant,
	e.session,
	e.conmgr AS conmgr_id
FROM @extschema@.pgx_watchdog_read('events') AS d(doc),
	LATERAL jsonb_to_recordset(d.doc -> 'events') AS e(
		seq bigint, "time" timestamptz, kind text, addr inet, outcome text, "case" text, reason text, silence_ms bigint,
		last_valid_at timestamptz, verdict_at timestamptz, evidence text, backends int, ended int, survivors_total int,
		spared int, newer int, pids int[], survivors jsonb, sockets_destroyed int, sockets text, dry_run bool,
		steps_ms jsonb, error text, warrant bigint, session bigint, conmgr text);

REVOKE ALL ON @extschema@.pgx_watchdog_events FROM PUBLIC;
GRANT SELECT ON @extschema@.pgx_watchdog_events TO pg_monitor;
COMMENT ON VIEW @extschema@.pgx_watchdog_events IS 'what the pgwatchdog of this instance did and why, the newest records; agentctl events has all';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.event IS 'warrant: sessions of a lost client host were to be terminated, see outcome; else a decision on the way there';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.client_addr IS 'the client host';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.outcome IS 'done, survivors, closed, dry run, host alive, protected, stuck or stopped';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.cause IS 'what the verdict was: which of the parameters watchdog.on_* decided';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.reason IS 'how the heartbeat session ended';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.silence_ms IS 'how long nothing valid had come at the verdict';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.backends IS 'database sessions that the verdict covered';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.ended IS 'of these, those that were gone at the end';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.survivors IS 'of these, those that were left; survivor_list names them and says why';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.spared IS 'replication connections that were left alone';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.newer IS 'sessions of the address that began after the verdict, left alone';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.pids IS 'processes of the sessions that the verdict covered';
COMMENT ON COLUMN @extschema@.pgx_watchdog_events.steps_ms IS 'milliseconds of each step';

-- Ends one session of a superuser, for the agent, whose role is none. Narrow: it
-- must be the very session that was seen, over TCP, and one that the right
-- pg_signal_backend does not suffice for. Whoever administers the instance decides
-- who may call it:
--   GRANT EXECUTE ON FUNCTION pgx_watchdog_terminate(integer, timestamptz, inet) TO pgwatchdog;
CREATE FUNCTION @extschema@.pgx_watchdog_terminate(of_pid int, of_start timestamptz, of_addr inet) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	seen record;
BEGIN
	-- The present sessions, not those at the begin of a transaction.
	PERFORM pg_stat_clear_snapshot();
	SELECT a.usename, a.backend_type, r.rolsuper INTO seen
	FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.oid = a.usesysid
	WHERE a.pid = of_pid AND a.backend_start = of_start AND a.client_addr = of_addr;
	IF seen.usename IS NULL THEN
		RETURN false; -- gone
	END IF;
	IF NOT seen.rolsuper OR seen.backend_type NOT IN ('client backend', 'walsender')
		OR seen.usename = session_user OR of_pid = pg_backend_pid() THEN
		RAISE EXCEPTION 'pgx_watchdog_terminate ends sessions of superusers only, and never the caller''s own'
			USING ERRCODE = 'insufficient_privilege', HINT = 'For other sessions there is pg_terminate_backend.';
	END IF;
	RETURN pg_terminate_backend(of_pid);
END
$body$;

REVOKE ALL ON FUNCTION @extschema@.pgx_watchdog_terminate(int, timestamptz, inet) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.pgx_watchdog_terminate(int, timestamptz, inet) IS
	'ends a superuser''s session of a lost client host, for pgwatchdog; grant it to the agent''s role, and to nobody else';
