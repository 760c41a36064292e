-- SPDX-License-Identifier: Apache-2.0
-- What other users can do: not choose the file that is read, not have their own
-- functions called with rights of others, not see what they were not granted.
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE stranger LOGIN;
GRANT CREATE ON SCHEMA public TO stranger; -- as in versions before 15

-- Before the extension: objects that would suit its script better than PostgreSQL's
-- own, in the schema where it is installed.
SET SESSION AUTHORIZATION stranger;
CREATE FUNCTION public.evil(numeric, bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 666.0';
CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = public.evil);
CREATE FUNCTION public.evil(bigint, double precision) RETURNS double precision LANGUAGE sql AS 'SELECT 666.0::float8';
CREATE OPERATOR public./ (LEFTARG = bigint, RIGHTARG = double precision, FUNCTION = public.evil);
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT '/evil'$$;
CREATE FUNCTION public.pg_stat_file(text, bool) RETURNS record LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
CREATE FUNCTION public.pgx_watchdog_terminate(int, timestamptz) RETURNS bool LANGUAGE sql AS 'SELECT true';
RESET SESSION AUTHORIZATION;
SET search_path = public, pg_catalog;
CREATE EXTENSION watchdog;
RESET search_path;
SELECT conmgr_port, rtt_ms, loss_percent FROM public.pgx_stat_watchdog ORDER BY 1;

-- A stranger sees and calls nothing.
SET SESSION AUTHORIZATION stranger;
SELECT * FROM pgx_stat_watchdog;
SELECT * FROM pgx_watchdog_events;
SELECT pgx_watchdog_read('sessions');
SELECT pgx_watchdog_terminate(1, now(), '127.0.0.1');
RESET SESSION AUTHORIZATION;

-- Who monitors sees, and ends nobody.
SET SESSION AUTHORIZATION monitor;
SELECT count(*) FROM pgx_stat_watchdog;
SELECT count(*) FROM pgx_watchdog_events;
SELECT pgx_watchdog_terminate(1, now(), '127.0.0.1');

-- The path cannot be moved: not by parameters that anybody can set, not by the
-- argument, not by functions and tables in front of PostgreSQL's own.
SET watchdog.run_dir = '/tmp';
SET watchdog.data_directory = '/tmp';
SET data_directory = '/tmp';
SELECT set_config('data_directory', '/tmp', false);
SELECT pgx_watchdog_read('../../etc/passwd');
SELECT pgx_watchdog_read('sessions.json/../../../etc/passwd');
SELECT pgx_watchdog_read(NULL) IS NULL AS nothing;
CREATE FUNCTION pg_temp.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT '/evil'$$;
CREATE FUNCTION pg_temp.convert_from(bytea, text) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION pg_temp.getdatabaseencoding() RETURNS name LANGUAGE sql AS $$SELECT 'evil'::name$$;
CREATE TEMPORARY TABLE pg_stat_activity (pid int, backend_start timestamptz, client_addr inet, usesysid oid, usename name, backend_type text);
SET search_path = pg_temp, public, pg_catalog;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET backslash_quote = off;
SET transform_null_equals = on;
SET plpgsql.extra_errors = 'all';
SET plpgsql.check_asserts = off;
SELECT count(*), min(rtt_ms) FROM public.pgx_stat_watchdog;
SELECT count(*) FROM public.pgx_watchdog_events;
RESET ALL;
RESET SESSION AUTHORIZATION;

-- Nor by who owns the database.
ALTER ROLE monitor SET search_path = public, pg_temp, pg_catalog;
ALTER DATABASE attack SET watchdog.run_dir = '/tmp';
\c - monitor
SELECT count(*) FROM pgx_stat_watchdog;
\c - postgres
DROP OWNED BY stranger, monitor;
DROP EXTENSION watchdog;
