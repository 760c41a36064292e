-- SPDX-License-Identifier: Apache-2.0
--
-- Makes the database role of pgwatchdog: the least with which all of it works. For
-- PostgreSQL 13 to 18. It may be run again at any time; what the role has besides
-- is left to it. As a superuser, on the primary (standbys get the role from there),
-- in the database of the agent's dsn:
--
--   psql -X -d postgres -f role.sql
--   psql -X -d postgres -v role=agent -f role.sql     -- under another name
--
-- Each right, and what pgwatchdog cannot do without it:
--
--   LOGIN, CONNECT                anything; it connects twice
--   pg_monitor                    see the addresses of other users' sessions, without
--                                 which it finds no session of a dead client; know the
--                                 data directory, of which it needs to hear for a
--                                 promotion and for the views of the extension
--   pg_signal_backend             end sessions of other users
--   pg_use_reserved_connections   connect anew when max_connections is exhausted
--                                 (16 and later, with reserved_connections = 2 in
--                                 postgresql.conf and a restart)
--   pg_file_settings,             see in which file and line a parameter watchdog.*
--   pg_show_all_file_settings()   stands, misspelt names, and what is hidden behind
--                                 settings of the role or database
--   pgx_watchdog_terminate()      end sessions of superusers. Only where the
--                                 extension watchdog exists in this database: run
--                                 the script again after CREATE EXTENSION
--
-- What a superuser could do besides: end sessions of superusers without the
-- extension, and connect in the slots of superuser_reserved_connections when
-- max_connections is exhausted, in versions before 16 as well. It could also do
-- everything else; a role that is reached without a password should not.
--
-- The role needs no password. pgwatchdog runs on the host of the instance and
-- connects by the Unix socket, where PostgreSQL asks the kernel whose process it is
-- (peer). In pg_hba.conf, before lines that are about more users:
--
--   local   postgres   pgwatchdog   peer
--
-- if the system user has the name of the role, as in the packages. For another one,
-- such as root, with a line in pg_ident.conf (map, system user, role):
--
--   local   postgres   pgwatchdog   peer map=pgwatchdog
--   pgwatchdog   root   pgwatchdog

\set ON_ERROR_STOP on
\if :{?role}
\else
\set role pgwatchdog
\endif

SET search_path = pg_catalog, pg_temp;

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role')
\gexec
ALTER ROLE :"role" LOGIN INHERIT;

GRANT CONNECT ON DATABASE :"DBNAME" TO :"role";
GRANT pg_monitor, pg_signal_backend TO :"role";
SELECT format('GRANT pg_use_reserved_connections TO %I', :'role')
WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_use_reserved_connections')
\gexec
GRANT SELECT ON pg_file_settings TO :"role";
GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO :"role";

SELECT format('GRANT EXECUTE ON FUNCTION %I.pgx_watchdog_terminate(int, timestamptz, inet) TO %I', n.nspname, :'role')
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'watchdog'
\gexec

SELECT coalesce(current_setting('reserved_connections', true) = '0', false) AS unreserved \gset
\if :unreserved
\echo 'Set reserved_connections = 2 in postgresql.conf and restart, so that pgwatchdog can connect when max_connections is exhausted.'
\endif
