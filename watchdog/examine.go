// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// Examination is what an agent finds when it connects to its instance.
type Examination struct {
	Version string // as the server has it: "15.18 (Debian 15.18-0+deb12u1)"
	Major   int    // 15
	Role    string
	Rights  Rights
	// Postmaster is the pid of the process whose death the agent would see;
	// PostmasterErr is why it would not, [ErrNotUnix] when the connection is TCP.
	Postmaster    int
	PostmasterErr error
	// DataDirectory is empty when the role may not read it; DirectoryErr is why the
	// agent cannot watch it for a promotion.
	DataDirectory string
	DirectoryErr  error
	Settings      *ServerSettings
	// Preload are the last settings of shared_preload_libraries and
	// session_preload_libraries in the configuration files, when the role may read
	// those (Rights.FileSettings).
	Preload []conf.Entry
	// Extension: the SQL extension is in the agent's database. EndsSuperusers: it
	// lets the agent's role end sessions of superusers.
	Extension, EndsSuperusers bool
	// Strangers are settings in these files whose name is nearly that of a parameter
	// but does not begin with "watchdog.", so that no agent ever sees them.
	Strangers []conf.Entry
}

// Examine connects as an agent does at its start, asks what it asks, and goes. It
// changes nothing. Brief and Advice say more about an error.
func Examine(ctx context.Context, o ConnectOptions) (*Examination, error) {
	l := &link{options: o, pid: new(atomic.Uint32)}
	c, err := l.open(ctx, o.timeout())
	if err != nil {
		return nil, err
	}
	defer l.close()
	version := l.conn.ParameterStatus("server_version")
	x := &Examination{
		Version: version, Major: serverMajor(version), Role: c.role, Rights: c.rights,
		PostmasterErr: c.postmasterErr, DataDirectory: c.dataDirectory,
	}
	if c.postmaster != nil {
		x.Postmaster = c.postmaster.pid
		c.postmaster.close()
	}
	if c.dataDirectory != "" {
		x.DirectoryErr = ProveDirectory(c.dataDirectory)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	if x.Settings, err = l.settings.read(ctx); err != nil {
		return nil, err
	}
	if x.Rights.FileSettings {
		if err = l.readOthers(ctx, x); err != nil {
			return nil, err
		}
	}
	_, err = findHelper(ctx, l.conn)
	x.Extension, x.EndsSuperusers = err == nil || errors.Is(err, errMayNotHelp), err == nil
	if errors.Is(err, errNoHelper) || errors.Is(err, errMayNotHelp) {
		err = nil
	}
	return x, err
}

// othersSQL is in the order in which a later line wins over an earlier one.
const othersSQL = `SELECT name, setting, sourcefile, sourceline::pg_catalog.text FROM pg_catalog.pg_file_settings
WHERE (name IN ('shared_preload_libraries', 'session_preload_libraries') OR name LIKE '%.%' AND name NOT ILIKE 'watchdog.%')
 AND setting IS NOT NULL ORDER BY seqno`

// readOthers reads the settings of the files that are not the agent's own.
func (l *link) readOthers(ctx context.Context, x *Examination) error {
	rows, err := queryTexts(ctx, l.conn, maxSettings, othersSQL)
	if err != nil {
		return fmt.Errorf("read pg_file_settings: %w", err)
	}
	var last []conf.Entry
	for _, row := range rows {
		if len(row) != 4 || slices.Contains(row, nil) {
			return errors.New("read pg_file_settings: expected name, setting, file and line")
		}
		line, _ := strconv.Atoi(*row[3])
		e := conf.Entry{Name: strings.ToLower(*row[0]), Value: *row[1], File: *row[2], Line: line}
		last = slices.DeleteFunc(last, func(earlier conf.Entry) bool { return earlier.Name == e.Name })
		last = append(last, e)
	}
	for _, e := range last {
		switch {
		case strings.HasSuffix(e.Name, "_preload_libraries"):
			x.Preload = append(x.Preload, e)
		case parameters.Nearest(e.Name) != "":
			x.Strangers = append(x.Strangers, e)
		}
	}
	return nil
}

// Place is the file and line of a setting, as messages have it.
func Place(e conf.Entry) string { return place(e) }
