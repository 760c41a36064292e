// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Rights are what the agent's role may do, proven by asking the instance.
type Rights struct {
	// ReadAllStats: the role sees the addresses of other users' sessions. Without
	// it the terminator finds nobody and must not report success.
	ReadAllStats bool
	// SignalBackend: the role may end other users' sessions, superusers' excepted.
	SignalBackend bool
	// Superuser: it may end superusers' sessions too.
	Superuser bool
	// UseReserved: it gets in when max_connections is exhausted (a superuser, or
	// pg_use_reserved_connections and reserved_connections > 0, PostgreSQL 16).
	UseReserved bool
	// ReadAllSettings: it may read data_directory, which the quickest way to see
	// a promotion needs.
	ReadAllSettings bool
	// FileSettings: it may read pg_file_settings, which names the file and line of
	// a parameter and shows misspelt ones.
	FileSettings bool
}

// Missing returns what to grant before the terminator can work, each as a
// sentence, and nil when nothing is missing.
func (r Rights) Missing(role string) []string {
	var missing []string
	if !r.ReadAllStats {
		missing = append(missing, "cannot see clients' addresses: GRANT pg_read_all_stats (or pg_monitor) TO "+role)
	}
	if !r.SignalBackend {
		missing = append(missing, "cannot end sessions: GRANT pg_signal_backend TO "+role)
	}
	return missing
}

// A role's members have its rights only when they inherit them: USAGE, not
// MEMBER. The predefined role of 16 is looked up, since naming one that does not
// exist is an error.
const rightsSQL = `SELECT
 r.rolsuper::pg_catalog.text,
 (r.rolsuper OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'))::pg_catalog.text,
 (r.rolsuper OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))::pg_catalog.text,
 (r.rolsuper OR (COALESCE(pg_catalog.current_setting('reserved_connections', true), '0') <> '0' AND
   EXISTS (SELECT 1 FROM pg_catalog.pg_roles u
           WHERE u.rolname = 'pg_use_reserved_connections' AND pg_catalog.pg_has_role(u.oid, 'USAGE'))))::pg_catalog.text,
 (r.rolsuper OR pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE'))::pg_catalog.text,
 (pg_catalog.has_table_privilege('pg_catalog.pg_file_settings', 'SELECT') AND
   pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE'))::pg_catalog.text
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`

// ProveRights asks the instance what the role of this connection may do.
func ProveRights(ctx context.Context, conn *pgconn.PgConn) (Rights, error) {
	rows, err := queryTexts(ctx, conn, 2, rightsSQL)
	if err != nil {
		return Rights{}, fmt.Errorf("prove rights: %w", err)
	}
	var r Rights
	fields := []*bool{&r.Superuser, &r.ReadAllStats, &r.SignalBackend, &r.UseReserved, &r.ReadAllSettings, &r.FileSettings}
	if len(rows) != 1 || len(rows[0]) != len(fields) {
		return Rights{}, errors.New("prove rights: expected one row for the agent's role")
	}
	for i, f := range fields {
		if rows[0][i] == nil {
			return Rights{}, errors.New("prove rights: expected true or false, found NULL")
		}
		*f = *rows[0][i] == "true"
	}
	return r, nil
}
