// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/watchdog"
)

// columns are those of SHOW INSTANCES that fit a line.
var columns = []string{"hostaddr", "port", "attribute", "monitoring", "heartbeat", "reason", "timeline"}

// show runs a command on conmgr's console with psql; the first row is the heading.
func (w *world) show(command string) ([][]string, error) {
	ctx, cancel := w.bounded()
	defer cancel()
	out, err := w.psql(ctx, portConsole, "conmgr", "--csv", "-c", command).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%s: expected a heading, got nothing", command)
	}
	return rows, err
}

// showInstances prints what conmgr says of the instances now, and fails when that
// is not what it should be: words of db1 and db2.
func (w *world) showInstances(db1, db2 string) error {
	rows, err := w.show("SHOW INSTANCES")
	if err != nil {
		return err
	}
	w.command(fmt.Sprintf("psql -h localhost -p %d conmgr -c 'SHOW INSTANCES'", portConsole),
		w.table(rows)+fmt.Sprintf("(%d of %d columns)", len(columns), len(rows[0])))
	for i, want := range []string{db1, db2} {
		if len(rows) < i+2 {
			return fmt.Errorf("SHOW INSTANCES: expected 2 instances, got %d", len(rows)-1)
		}
		got := field(rows, i+1, "monitoring") + " " + field(rows, i+1, "attribute")
		if got != want {
			return fmt.Errorf("SHOW INSTANCES: db%d is %q, expected %q", i+1, got, want)
		}
	}
	return nil
}

// field is a value by the name of its column, "" when there is no such column.
func field(rows [][]string, row int, column string) string {
	if i := slices.Index(rows[0], column); i >= 0 {
		return rows[row][i]
	}
	return ""
}

// table aligns the columns that are shown.
func (w *world) table(rows [][]string) string {
	widths := make([]int, len(columns))
	for r := range rows {
		for i, name := range columns {
			widths[i] = max(widths[i], len(field(rows, r, name)))
		}
	}
	var out strings.Builder
	for r := range rows {
		var line strings.Builder
		for i, name := range columns {
			line.WriteString(pad(field(rows, r, name), widths[i]+2))
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return out.String()
}

// faultSilence is how long conmgr itself says that an instance was silent when it
// was judged, in whole milliseconds.
func (w *world) faultSilence() (time.Duration, error) {
	rows, err := w.show("SHOW EVENTS")
	if err != nil {
		return 0, err
	}
	for r := len(rows) - 1; r > 0; r-- {
		if field(rows, r, "kind") != "fault" {
			continue
		}
		ms, err := strconv.Atoi(field(rows, r, "silence_ms"))
		if err != nil {
			return 0, fmt.Errorf("SHOW EVENTS: silence_ms: %w", err)
		}
		return time.Duration(ms) * time.Millisecond, nil
	}
	return 0, fmt.Errorf("SHOW EVENTS: expected a fault in %q", rows)
}

// agentEvent returns the latest record of the agent on db2 that tells what became
// of the client's sessions, nil when there is none yet.
func (w *world) agentEvent() (last *watchdog.Event, err error) {
	text, err := os.ReadFile(filepath.Join(w.lab.Dir, w.db2.Name, w.standby.Name, "watchdog", "events.jsonl"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		e := new(watchdog.Event)
		if json.Unmarshal([]byte(line), e) == nil && e.Outcome != "" && e.Addr == w.client.Addr4 {
			last = e
		}
	}
	return last, nil
}
