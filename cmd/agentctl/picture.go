// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// picture is what was there at one moment, ready to be shown in every way.
type picture struct {
	at    time.Time
	notes []string                  // what could not be shown, and why
	table func(limit int) textTable // on lines of so many characters, 0 for no limit
	json  func(io.Writer) error     // one object per line
}

// textTable is a picture as text.
type textTable struct {
	lines   []string // headings first
	summary string   // how many, and which columns are missing
}

// layTable lays rows out on lines of so many characters, 0 for no limit. what is the
// name of one.
func layTable(columns []column, rows [][]string, what string, limit int) textTable {
	l := fit(columns, rows, limit)
	t := textTable{lines: []string{l.headings()}, summary: summary(len(rows), what, &l)}
	for _, r := range rows {
		t.lines = append(t.lines, l.line(r))
	}
	return t
}

// print shows a picture once. Notes go to stderr.
func (p *picture) print(e *env, json bool) error {
	n := notes{e: e}
	defer n.print(p.notes)
	if json {
		return p.json(e.stdout)
	}
	return p.printTable(e)
}

// printTable writes the table and, on a terminal, what stands below it.
func (p *picture) printTable(e *env) error {
	columns, _ := e.size()
	t := p.table(columns)
	for _, line := range t.lines {
		if _, err := fmt.Fprintln(e.stdout, line); err != nil {
			return err
		}
	}
	if columns > 0 {
		_, err := fmt.Fprintln(e.stdout, wrap(t.summary, columns))
		return err
	}
	return nil
}

// printBlock writes one picture of many into a pipe: a line with the time, and the
// table. An empty line stands between two.
func (p *picture) printBlock(e *env, first bool) error {
	t := p.table(0)
	text := fmt.Sprintf("%s  %s\n%s\n", p.at.Format(time.RFC3339), t.summary, strings.Join(t.lines, "\n"))
	if !first {
		text = "\n" + text
	}
	_, err := fmt.Fprint(e.stdout, text)
	return err
}

// frame draws a picture over the one before, without a moment of emptiness in
// between.
func (p *picture) frame(every time.Duration, columns, lines int, first bool) string {
	t := p.table(columns)
	head := []string{fmt.Sprintf("%s  every %s  %s", p.at.Format(time.TimeOnly), every, t.summary)}
	for _, note := range p.notes {
		head = append(head, "note: "+oneLine(note))
	}
	head = append(head, "")
	room := max(lines-len(head)-1, 2)
	if len(t.lines) > room {
		more := len(t.lines) - room + 1
		t.lines = append(t.lines[:room-1:room-1], fmt.Sprintf("and %d more", more))
	}
	var b strings.Builder
	if first {
		b.WriteString(clearScreen)
	}
	b.WriteString(cursorHome)
	for _, line := range append(head, t.lines...) {
		if utf8.RuneCountInString(line) > columns {
			line = cut(line, columns, false)
		}
		b.WriteString(clearLine + line + "\r\n")
	}
	b.WriteString(clearBelow)
	return b.String()
}

// notes prints what could not be shown, each note once.
type notes struct {
	e    *env
	said map[string]bool
}

func (n *notes) print(texts []string) {
	for _, text := range texts {
		if n.said[text] {
			continue
		}
		if n.said == nil {
			n.said = make(map[string]bool)
		}
		n.said[text] = true
		fmt.Fprintf(n.e.stderr, "%s: note: %s\n", program, oneLine(text))
	}
}
