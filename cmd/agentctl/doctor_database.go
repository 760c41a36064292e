// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// The checks that need the instance, in the order of the help.
const (
	checkDatabase     = "database"
	checkSocket       = "unix socket"
	checkStats        = "pg_read_all_stats"
	checkSignal       = "pg_signal_backend"
	checkReserved     = "reserved connection"
	checkSuperuser    = "superuser sessions"
	checkDirectory    = "data directory"
	checkPlaceholders = "placeholders"
	checkPreload      = "preload libraries"
)

var checksOfInstance = []string{
	checkSocket, checkStats, checkSignal, checkReserved, checkSuperuser, checkDirectory, checkPlaceholders, checkPreload,
}

// examine connects as pgwatchdog does, from the own network namespace. It returns an
// error of usage only.
func (d *doctor) examine(ctx context.Context) error {
	dsn := d.options.dsn
	if !d.options.dsnGiven {
		if dsn = d.own("dsn"); dsn == "" {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*askLimit)
	defer cancel()
	d.instance, d.instanceErr = watchdog.Examine(ctx, watchdog.ConnectOptions{DSN: dsn, ApplicationName: program, Timeout: askLimit})
	var parse *pgconn.ParseConfigError
	if errors.As(d.instanceErr, &parse) && d.options.dsnGiven {
		return usageError("--dsn: %w", parse)
	}
	return nil
}

// checkInstance tells what examine found.
func (d *doctor) checkInstance() {
	x := d.instance
	switch err := d.instanceErr; {
	case err != nil:
		advice := watchdog.Advice(err)
		if advice == "" {
			advice = "let the instance run, and --dsn lead to it, as in host=/var/run/postgresql user=pgwatchdog"
		}
		d.add(checkDatabase, missing, watchdog.Brief(err), advice)
		d.skipInstance("needs the database")
		return
	case x == nil:
		d.add(checkDatabase, skipped, "no --dsn, and no dsn in pgwatchdog.conf", "")
		d.skipInstance("needs --dsn=CONNINFO")
		return
	}
	d.add(checkDatabase, works, fmt.Sprintf("PostgreSQL %s, role %s", x.Version, x.Role), "")
	d.checkSocket(x)
	d.checkRights(x)
	d.checkDirectory(x)
	d.checkPlaceholders(x)
	d.checkPreload(x)
}

func (d *doctor) skipInstance(why string) {
	for _, check := range checksOfInstance {
		d.add(check, skipped, why, "")
	}
}

func (d *doctor) checkSocket(x *watchdog.Examination) {
	const then = "; the death of the postmaster is seen by checks only"
	switch {
	case x.PostmasterErr == nil:
		d.add(checkSocket, works, fmt.Sprintf("postmaster %d can be watched", x.Postmaster), "")
	case errors.Is(x.PostmasterErr, watchdog.ErrNotUnix):
		d.add(checkSocket, warning, "connected by TCP"+then, "the socket directory as host in the dsn, as in host=/var/run/postgresql, and for the role: local postgres "+sqlName(x.Role)+" peer in pg_hba.conf")
	default:
		d.add(checkSocket, warning, x.PostmasterErr.Error()+then, "run pgwatchdog in the pid namespace of the instance")
	}
}

func (d *doctor) checkRights(x *watchdog.Examination) {
	role, r := sqlName(x.Role), x.Rights
	right := func(check string, has bool, can, cannot string) {
		if has {
			d.add(check, works, can, "")
		} else {
			d.add(check, missing, cannot, "GRANT "+check+" TO "+role)
		}
	}
	right(checkStats, r.ReadAllStats, "sees the addresses of all sessions", "sees the addresses of its own sessions only: finds no session of a dead client")
	right(checkSignal, r.SignalBackend, "may end sessions of other users", "may not end sessions of other users")
	switch {
	case r.UseReserved:
		d.add(checkReserved, works, "gets in when max_connections is exhausted", "")
	case x.Major < 16:
		d.add(checkReserved, skipped, "needs PostgreSQL 16", "let max_connections be larger by 2")
	default:
		d.add(checkReserved, warning, "cannot connect anew when max_connections is exhausted",
			"GRANT pg_use_reserved_connections TO "+role+" and reserved_connections = 2 (restart), or let max_connections be larger by 2")
	}
	d.checkSuperusers(x)
}

// checkSuperusers tells what becomes of their sessions.
func (d *doctor) checkSuperusers(x *watchdog.Examination) {
	const asItShould = "not a superuser, as it should be: "
	role := sqlName(x.Role)
	switch {
	case x.Rights.Superuser:
		d.add(checkSuperuser, warning, "the role is a superuser: ends their sessions, too, and may do everything else",
			"ALTER ROLE "+role+" NOSUPERUSER, unless this is wanted")
	case x.EndsSuperusers:
		d.add(checkSuperuser, works, asItShould+"the extension watchdog ends their sessions", "")
	case x.Extension:
		d.add(checkSuperuser, warning, "the extension watchdog may not be asked to end their sessions: they survive, and are reported by name",
			"GRANT EXECUTE ON FUNCTION pgx_watchdog_terminate TO "+role)
	default:
		d.add(checkSuperuser, works, asItShould+"their sessions survive, and are reported by name", "")
	}
}

func (d *doctor) checkDirectory(x *watchdog.Examination) {
	const then = "; a promotion is seen by checks only"
	switch err := x.DirectoryErr; {
	case x.DataDirectory == "":
		d.add(checkDirectory, warning, "the role may not read data_directory"+then, "GRANT pg_monitor TO "+sqlName(x.Role))
	case err == nil:
		d.add(checkDirectory, works, x.DataDirectory+" can be watched", "")
	case errors.Is(err, fs.ErrPermission):
		d.add(checkDirectory, warning, err.Error()+then,
			"AmbientCapabilities=CAP_DAC_READ_SEARCH, or a cluster with group access (initdb --allow-group-access) and the user of pgwatchdog in its group")
	case errors.Is(err, fs.ErrNotExist):
		d.add(checkDirectory, warning, err.Error()+then, "run pgwatchdog where it sees the files of the instance")
	default:
		d.add(checkDirectory, warning, err.Error()+then, "see inotify")
	}
}

func (d *doctor) checkPlaceholders(x *watchdog.Examination) {
	_, found := watchdog.Resolve(watchdog.Sources{Server: x.Settings}, nil)
	role := sqlName(x.Role)
	grant := ""
	if !x.Rights.FileSettings {
		grant = grantFiles(role)
	}
	wrong := slices.Concat(found.Errors, found.Warnings)
	for _, e := range x.Strangers {
		wrong = append(wrong, fmt.Sprintf("%s: %s is nobody's setting, perhaps %s is meant", watchdog.Place(e), e.Name, watchdog.Parameters().Nearest(e.Name)))
	}
	switch {
	case len(wrong) > 0:
		advice := "correct it, then SELECT pg_reload_conf()"
		if grant != "" {
			advice += "; " + grant
		}
		d.add(checkPlaceholders, missing, strings.Join(wrong, "; "), advice)
	case grant != "":
		d.add(checkPlaceholders, skipped, "the role may not read pg_file_settings: PostgreSQL shows misspelt names nowhere else", grant)
	default:
		d.add(checkPlaceholders, works, plural(len(x.Settings.Entries), "setting")+" of watchdog.* in the files of the instance", "")
	}
}

func grantFiles(role string) string {
	return "GRANT SELECT ON pg_file_settings TO " + role + "; GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO " + role
}

// checkPreload looks at the files: a server that runs has none in force that could
// keep it from starting.
func (d *doctor) checkPreload(x *watchdog.Examination) {
	if !x.Rights.FileSettings {
		d.add(checkPreload, skipped, "the role may not read pg_file_settings", grantFiles(sqlName(x.Role)))
		return
	}
	for _, e := range x.Preload {
		if !preloadsWatchdog(e) {
			continue
		}
		then := "the instance will not start"
		if e.Name == "session_preload_libraries" {
			then = "no session will start"
		}
		d.add(checkPreload, missing, fmt.Sprintf("%s: watchdog is in %s, but there is no such library: %s", watchdog.Place(e), e.Name, then),
			fmt.Sprintf("take watchdog out of %s before the next restart; pgwatchdog needs no library", e.Name))
		return
	}
	d.add(checkPreload, works, "watchdog is not among them", "")
}

func preloadsWatchdog(e conf.Entry) bool {
	for word := range strings.SplitSeq(e.Value, ",") {
		word = strings.Trim(strings.TrimSpace(word), `"`)
		if strings.TrimSuffix(path.Base(word), ".so") == "watchdog" {
			return true
		}
	}
	return false
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// sqlName is a name as it stands in a statement.
func sqlName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
