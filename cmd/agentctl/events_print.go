// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// eventColumn is a column of the table of events.
type eventColumn struct {
	column
	field string                         // that it shows as it is, unless there is a cell
	cell  func(e *env, r *record) string // nil: the field
}

var eventColumns = []eventColumn{
	{column{heading: "time"}, "", func(e *env, r *record) string {
		return r.Time.In(e.now().Location()).Format("2006-01-02 15:04:05")
	}},
	{column{heading: "event", min: 8}, "kind", nil},
	{column{heading: "peer", min: 10}, "addr", nil},
	{column{heading: "outcome", rank: 1}, "outcome", nil},
	{column{heading: "case", rank: 4}, "case", nil},
	{column{heading: "silence", right: true, rank: 2}, "", silenceText},
	{column{heading: "ended", right: true, rank: 3}, "", endedText},
	{column{heading: "survivors", right: true, rank: 5}, "survivors_total", nil},
	{column{heading: "sockets", rank: 6, min: 10}, "sockets", nil},
	{column{heading: "error", rank: 7, min: 10}, "error", nil},
	{column{heading: "evidence", rank: 8, min: 20}, "evidence", nil},
	{column{heading: "more", rank: 9, min: 20}, "", moreText},
}

// ownColumn are the fields that the columns before "more" show.
var ownColumn = []string{
	"seq", "time", "kind", "addr", "outcome", "case", "silence_ms", "ended", "backends", "survivors", "survivors_total",
	"sockets", "error", "evidence",
}

func silenceText(_ *env, r *record) string {
	if ms, err := time.ParseDuration(r.text("silence_ms") + "ms"); err == nil {
		return short(ms)
	}
	return r.text("silence_ms")
}

func endedText(_ *env, r *record) string {
	backends := r.text("backends")
	if backends == "" {
		return ""
	}
	ended := r.text("ended")
	if ended == "" { // the agent leaves out zeros
		ended = "0"
	}
	return ended + "/" + backends
}

// moreText is every field that no other column shows.
func moreText(_ *env, r *record) string {
	var parts []string
	for _, f := range r.fields {
		if !slices.Contains(ownColumn, f.name) {
			parts = append(parts, f.name+"="+quoted(f.value))
		}
	}
	return strings.Join(parts, " ")
}

// eventPrinter prints records as they come.
type eventPrinter struct {
	e      *env
	o      *eventsOptions
	layout *layout // of the table so far; nil before the first row
	// said is what complain has told.
	damaged int
	missed  uint64
	blocks  int // printed by --expanded
}

// print shows those of the records that are wanted. At first a table has its
// headings even when it is empty.
func (p *eventPrinter) print(records []watchdog.EventRecord, first bool) error {
	var wanted []record
	for _, r := range records {
		if full := recordOf(r); p.o.wants(&full) {
			wanted = append(wanted, full)
		}
	}
	switch {
	case p.o.json:
		for _, r := range wanted {
			if _, err := fmt.Fprintf(p.e.stdout, "%s\n", r.Line); err != nil {
				return err
			}
		}
		return nil
	case p.o.expanded:
		return p.expand(wanted)
	case len(wanted) == 0 && !first:
		return nil
	}
	return p.table(wanted)
}

// table goes on with the columns as they are while the new rows fit in, and
// begins anew otherwise.
func (p *eventPrinter) table(records []record) error {
	columns := make([]column, len(eventColumns))
	for i, c := range eventColumns {
		columns[i] = c.column
	}
	rows := make([][]string, len(records))
	for i := range records {
		for _, c := range eventColumns {
			rows[i] = append(rows[i], dash(c.text(p.e, &records[i])))
		}
	}
	var lines []string
	if p.layout == nil || slices.ContainsFunc(rows, func(row []string) bool { return !p.layout.holds(row) }) {
		limit, _ := p.e.size()
		l := fit(columns, rows, limit)
		p.layout = &l
		lines = append(lines, l.headings())
	}
	for _, row := range rows {
		lines = append(lines, p.layout.line(row))
	}
	if limit, _ := p.e.size(); limit > 0 && !p.o.follow {
		lines = append(lines, wrap(summary(len(rows), "event", p.layout)+"; --expanded shows all", limit))
	}
	_, err := fmt.Fprintln(p.e.stdout, strings.Join(lines, "\n"))
	return err
}

func (c *eventColumn) text(e *env, r *record) string {
	if c.cell == nil {
		return r.text(c.field)
	}
	return c.cell(e, r)
}

// expand prints a line for each field, and for each item of a list of objects.
func (p *eventPrinter) expand(records []record) error {
	for _, r := range records {
		var b strings.Builder
		if p.blocks++; p.blocks > 1 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "event %d  %s\n", r.Seq, cli.Printable(r.Kind))
		for _, f := range r.fields {
			if f.name != "seq" && f.name != "kind" {
				p.expandField(&b, f)
			}
		}
		if _, err := fmt.Fprint(p.e.stdout, b.String()); err != nil {
			return err
		}
	}
	return nil
}

func (p *eventPrinter) expandField(b *strings.Builder, f field) {
	values := []any{f.value}
	if list, ok := f.value.([]any); ok && len(list) > 0 {
		if _, ok := list[0].(map[string]any); ok {
			values = list
		}
	}
	for _, value := range values {
		text := plain(value)
		// Times of the record are written in UTC or the agent's zone.
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			text = at.In(p.e.now().Location()).Format("2006-01-02 15:04:05.000 MST")
		}
		fmt.Fprintf(b, "  %-15s  %s\n", cli.Printable(f.name), cli.Printable(dash(text)))
	}
}

// complain tells of records that are missing or cannot be read, once.
func (p *eventPrinter) complain(r *watchdog.EventReader) {
	if n := r.Damaged(); n > p.damaged {
		fmt.Fprintf(p.e.stderr, "%s: note: %s could not be read\n", program, plural(n-p.damaged, "record"))
		p.damaged = n
	}
	if n := r.Missed(); n > p.missed {
		fmt.Fprintf(p.e.stderr, "%s: note: %s missing between those shown\n", program, plural(int(n-p.missed), "record"))
		p.missed = n
	}
}
