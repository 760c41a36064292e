// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// ServerSettings is what the instance's configuration says for the agent. It is
// plain data and survives in the state directory.
type ServerSettings struct {
	// Entries are the watchdog.* settings in force at the level of the
	// postmaster, unchecked, with file and line where the role may know them.
	Entries []conf.Entry
	// ListenAddresses, Port and MaxConnections are the instance's own.
	ListenAddresses string
	Port            uint16
	MaxConnections  int
	// Hidden are watchdog.* names whose value cannot be seen, because a setting of
	// a database or role stands before it.
	Hidden []string `json:",omitempty"`
	// Warnings are settings that do not count, each as a line.
	Warnings []string `json:",omitempty"`

	// readOnly is the server's default_transaction_read_only when the session's
	// own is not to be believed, else nil.
	readOnly *bool
}

// Inherit takes the values of hidden settings from an earlier set, so that a
// setting that does not count cannot even switch another one off.
func (s *ServerSettings) Inherit(earlier *ServerSettings) {
	if earlier == nil {
		return
	}
	for _, e := range earlier.Entries {
		if slices.Contains(s.Hidden, e.Name) {
			s.Entries = append(s.Entries, e)
		}
	}
}

// maxSettings bounds the rows of each question about settings.
const maxSettings = 1000

// defaults are the parameters whose default is a parameter of the instance.
func (s *ServerSettings) defaults() []conf.Entry {
	var entries []conf.Entry
	if s.ListenAddresses != "" {
		entries = append(entries, conf.Entry{Name: "watchdog.listen_addresses", Value: s.ListenAddresses, File: "listen_addresses of the instance"})
	}
	if s.MaxConnections > 0 {
		entries = append(entries, conf.Entry{Name: "watchdog.max_heartbeat_connections", Value: strconv.Itoa(s.MaxConnections), File: "max_connections of the instance"})
	}
	return entries
}

// settingsReader reads the settings over one connection.
//
// PostgreSQL keeps watchdog.* as placeholders: of any text, not shown in
// pg_settings, and open to ALTER DATABASE and ALTER ROLE ... SET, by which
// whoever owns the agent's database, or is its role, could change whom the agent
// kills. Only the postmaster's level counts. What the session inherited from
// elsewhere was fixed when it connected, and hides the file's value; so a name
// that pg_db_role_setting was ever seen to hold during this connection is not
// believed. Its value then comes from pg_file_settings, when the role may read
// that, and is hidden else.
type settingsReader struct {
	conn       *pgconn.PgConn
	rights     Rights
	overridden map[string]string // name -> whose setting it is
}

const (
	overridesSQL = `SELECT pg_catalog.split_part(kv, '=', 1),
 CASE WHEN s.setrole = 0 THEN 'all roles' ELSE 'role ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(s.setrole)) END ||
 CASE WHEN s.setdatabase = 0 THEN '' ELSE ' in database ' || pg_catalog.quote_ident(pg_catalog.current_database()) END
FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS kv
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
 AND s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = session_user))
 AND (kv ILIKE 'watchdog.%' OR kv ILIKE 'default\_transaction\_read\_only=%')`

	currentSQL = `SELECT n, pg_catalog.current_setting(n, true)
FROM pg_catalog.unnest(pg_catalog.string_to_array($1::pg_catalog.text, ',')) AS n`

	fileSQL = `SELECT name, setting, sourcefile, sourceline::pg_catalog.text FROM pg_catalog.pg_file_settings
WHERE (name ILIKE 'watchdog.%' OR name = 'default_transaction_read_only') AND setting IS NOT NULL ORDER BY seqno`

	instanceSQL = `SELECT pg_catalog.current_setting('listen_addresses'), pg_catalog.current_setting('port'),
 pg_catalog.current_setting('max_connections'),
 CASE WHEN $1::pg_catalog.bool THEN pg_catalog.current_setting('config_file') END`
)

// read returns the settings in force now.
func (r *settingsReader) read(ctx context.Context) (*ServerSettings, error) {
	if err := r.readOverrides(ctx); err != nil {
		return nil, err
	}
	s := new(ServerSettings)
	file, err := r.readInstance(ctx, s)
	if err != nil {
		return nil, err
	}
	files, err := r.readFiles(ctx)
	if err != nil {
		return nil, err
	}
	current, err := queryTexts(ctx, r.conn, maxSettings, currentSQL, strings.Join(parameterNames(), ","))
	if err != nil {
		return nil, fmt.Errorf("read watchdog.* settings: %w", err)
	}
	r.readReadOnly(s, files)
	return s, r.merge(s, current, files, file)
}

// readOverrides adds to overridden; nothing is ever taken out of it.
func (r *settingsReader) readOverrides(ctx context.Context) error {
	rows, err := queryTexts(ctx, r.conn, maxSettings, overridesSQL)
	if err != nil {
		return fmt.Errorf("read settings of databases and roles: %w", err)
	}
	if r.overridden == nil {
		r.overridden = make(map[string]string)
	}
	for _, row := range rows {
		if len(row) == 2 && row[0] != nil && row[1] != nil {
			r.overridden[strings.ToLower(*row[0])] = *row[1]
		}
	}
	return nil
}

func (r *settingsReader) readInstance(ctx context.Context, s *ServerSettings) (file string, err error) {
	rows, err := queryTexts(ctx, r.conn, 2, instanceSQL, strconv.FormatBool(r.rights.ReadAllSettings))
	if err != nil {
		return "", fmt.Errorf("read the instance's settings: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 4 || slices.Contains(rows[0][:3], nil) {
		return "", errors.New("read the instance's settings: expected listen_addresses, port and max_connections")
	}
	port, err := conf.ParseInt(*rows[0][1], 1, 65535)
	if err != nil {
		return "", fmt.Errorf("port of the instance: %w", err)
	}
	connections, err := conf.ParseInt(*rows[0][2], 1, 1<<20)
	if err != nil {
		return "", fmt.Errorf("max_connections of the instance: %w", err)
	}
	s.ListenAddresses, s.Port, s.MaxConnections = *rows[0][0], uint16(port), int(connections)
	if rows[0][3] != nil {
		return *rows[0][3], nil
	}
	return confFile, nil
}

// readFiles returns the last setting of each name in the configuration files, as
// they are now. It is empty when the role may not read them.
func (r *settingsReader) readFiles(ctx context.Context) (map[string]conf.Entry, error) {
	files := make(map[string]conf.Entry)
	if !r.rights.FileSettings {
		return files, nil
	}
	rows, err := queryTexts(ctx, r.conn, maxSettings, fileSQL)
	if err != nil {
		return nil, fmt.Errorf("read pg_file_settings: %w", err)
	}
	for _, row := range rows {
		if len(row) != 4 || slices.Contains(row, nil) {
			continue
		}
		line, _ := strconv.Atoi(*row[3])
		e := conf.Entry{Name: strings.ToLower(*row[0]), Value: *row[1], File: *row[2], Line: line}
		files[e.Name] = e
	}
	return files, nil
}

// readReadOnly finds the server's default_transaction_read_only behind a setting
// of the agent's own role or database. Unseen it is off, PostgreSQL's default: an
// agent that was itself made read-only must not take the instance out of service.
func (r *settingsReader) readReadOnly(s *ServerSettings, files map[string]conf.Entry) {
	const name = "default_transaction_read_only"
	whose, hidden := r.overridden[name]
	if !hidden {
		return
	}
	on, then := false, "off is assumed"
	if e, ok := files[name]; ok {
		if value, err := conf.ParseBool(e.Value); err == nil {
			on, then = value, "the value of "+place(e)+" is used"
		}
	}
	s.readOnly = &on
	s.Warnings = append(s.Warnings, fmt.Sprintf("%s: set for %s, which hides the server's value from the agent; %s", name, whose, then))
}

// merge makes the entries: the value in force, the place from the files; names
// that only the files know are unknown to the agent and pass on to be warned of.
func (r *settingsReader) merge(s *ServerSettings, current [][]*string, files map[string]conf.Entry, file string) error {
	for _, row := range current {
		if len(row) != 2 || row[0] == nil {
			return errors.New("read watchdog.* settings: expected name and value")
		}
		name := *row[0]
		e, inFile := files[name]
		delete(files, name)
		switch whose, hidden := r.overridden[name]; {
		case hidden && inFile:
			s.warnOverride(name, whose, "the value of "+place(e)+" is used")
		case hidden:
			s.warnOverride(name, whose, "the value last known is used, else the default")
			s.Hidden = append(s.Hidden, name)
			continue
		case row[1] == nil || *row[1] == "":
			continue
		case !inFile || e.Value != *row[1]:
			e = conf.Entry{Name: name, Value: *row[1], File: file}
		}
		s.Entries = append(s.Entries, e)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, "watchdog.") {
			s.Entries = append(s.Entries, files[name])
		}
	}
	return nil
}

func (s *ServerSettings) warnOverride(name, whose, then string) {
	s.Warnings = append(s.Warnings, fmt.Sprintf("%s: set for %s, where it does not count: expected it in postgresql.conf only; %s", name, whose, then))
}
