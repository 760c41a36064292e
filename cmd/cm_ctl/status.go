// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// column is one column of a block: its heading and the console's name for it.
type column struct{ heading, name string }

// block is one part of the status. The seed's columns stand first.
type block struct {
	name    string // heading, and key in JSON
	info    string // value of -i that shows it besides all
	command string
	columns []column
}

var blocks = []block{
	{"conmgr_status", "", "SHOW STATUS", []column{
		{"status", "status"}, {"pid", "pid"}, {"started", "started"}, {"version", "version"},
		{"instances", "instances"}, {"applications", "applications"}, {"link_hints", "link_hints"},
	}},
	{"instance_information", "instance", "SHOW INSTANCES", []column{
		{"addr", "hostaddr"}, {"port", "port"}, {"database_attr", "attribute"}, {"number", "number"}, {"host", "host"},
		{"status", "status"}, {"monitoring", "monitoring"}, {"heartbeat", "heartbeat"}, {"read_only", "read_only"},
		{"timeline", "timeline"}, {"wal", "wal"}, {"rtt_ms", "rtt_ms"}, {"heard_ms", "heard_ms"},
		{"lost", "lost"}, {"received", "received"}, {"reason", "reason"}, {"why", "why"},
		{"kills", "kills"},
	}},
	{"application_information", "application", "SHOW APPLICATIONS", []column{
		{"addr", "addr"}, {"port", "port"}, {"pid", "pid"}, {"connected", "connected"}, {"id", "id"}, {"kind", "kind"},
		{"uid", "uid"}, {"target", "target"}, {"instance", "instance"}, {"host", "host"}, {"state", "state"},
	}},
}

// status shows a running conmgr.
func status(e env, d *conmgr.Directory, o options) int {
	if _, err := running(d); err != nil {
		if errors.Is(err, errNotRunning) {
			return notRunning(e, o, err)
		}
		return fail(e, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	shown, tables, err := ask(ctx, d, o.info)
	if err != nil {
		// A process that ends has closed its sockets before it is gone.
		if ended := awaitEnd(e, d); ended != nil {
			return notRunning(e, o, ended)
		}
		return fail(e, fmt.Errorf("conmgr is running and does not answer: %w", err))
	}
	if o.json {
		return printJSON(e, shown, tables)
	}
	for i, b := range shown {
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		fmt.Fprintf(e.stdout, "%s:\n%s", b.name, format(b, tables[i]))
	}
	return cli.ExitOK
}

// awaitEnd waits a moment for the end of conmgr and returns what running says
// then, nil when it runs on.
func awaitEnd(e env, d *conmgr.Directory) error {
	const looks = 10
	for i := range looks {
		if i > 0 {
			time.Sleep(e.poll)
		}
		if _, err := running(d); errors.Is(err, errNotRunning) {
			return err
		}
	}
	return nil
}

func notRunning(e env, o options, err error) int {
	if o.json {
		fmt.Fprintln(e.stdout, `{"conmgr_status":{"status":"not running"}}`)
		return cli.ExitNotRunning
	}
	fmt.Fprintf(e.stdout, "%s: %v\n", program, err)
	return cli.ExitNotRunning
}

// ask runs the commands of the blocks that info wants.
func ask(ctx context.Context, d *conmgr.Directory, info string) ([]block, []*table, error) {
	c, err := dial(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	var shown []block
	var tables []*table
	for _, b := range blocks {
		if info != "all" && info != b.info {
			continue
		}
		t, err := c.query(ctx, b.command)
		if err != nil {
			return nil, nil, err
		}
		shown, tables = append(shown, b), append(tables, t)
	}
	return shown, tables, nil
}

// format aligns a table. NULL and columns that conmgr does not have are "-".
func format(b block, t *table) string {
	lines := [][]string{nil}
	for _, c := range b.columns {
		lines[0] = append(lines[0], c.heading)
	}
	for i := range t.rows {
		var line []string
		for _, c := range b.columns {
			field := cli.Printable(t.text(i, c.name))
			if field == "" {
				field = "-"
			}
			line = append(line, field)
		}
		lines = append(lines, line)
	}
	return align(lines)
}

func align(lines [][]string) string {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, field := range line {
			width[i] = max(width[i], utf8.RuneCountInString(field))
		}
	}
	var out strings.Builder
	for _, line := range lines {
		var row strings.Builder
		for i, field := range line {
			row.WriteString(field + strings.Repeat(" ", width[i]-utf8.RuneCountInString(field)+2))
		}
		out.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	return out.String()
}

// printJSON prints one object with a key per block; conmgr_status is an object,
// the others are arrays. Every column of the console is in it, by its own name.
func printJSON(e env, shown []block, tables []*table) int {
	all := make(map[string]any)
	for i, b := range shown {
		rows := make([]map[string]any, len(tables[i].rows))
		for r := range rows {
			rows[r] = make(map[string]any)
			for c, name := range tables[i].columns {
				rows[r][name] = tables[i].value(r, c)
			}
		}
		all[b.name] = rows
		if b.info == "" && len(rows) == 1 {
			all[b.name] = rows[0]
		}
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fail(e, err)
	}
	fmt.Fprintf(e.stdout, "%s\n", text)
	return cli.ExitOK
}

// jsonNumber is a number as conmgr wrote it, or a string when it is none.
func jsonNumber(s string) any {
	if json.Valid([]byte(s)) {
		return json.Number(s)
	}
	return s
}
