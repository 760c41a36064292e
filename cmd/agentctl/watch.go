// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Control sequences of every terminal since the VT100.
const (
	clearScreen = "\x1b[2J"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K" // from the cursor on: behind a full line it would take its last character
	clearBelow  = "\x1b[J"
)

// watch looks again and again until ctx ends, which is no error. A terminal is
// drawn anew; a pipe gets a block for each look, or its objects.
func watch(ctx context.Context, e *env, l *lister, o socketsOptions) error {
	ticker := time.NewTicker(o.watch)
	defer ticker.Stop()
	n := notes{e: e}
	for first := true; ; first = false {
		seen, err := l.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		switch columns, lines := e.size(); {
		case o.json:
			n.print(seen.allNotes())
			err = printSockets(e.stdout, seen)
		case columns > 0:
			_, err = fmt.Fprint(e.stdout, frame(seen, o, columns, lines, first))
		default:
			n.print(seen.allNotes())
			err = printBlock(e, seen, o.target.joined, first)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// printBlock writes one look into a pipe: a line with the time, and the table. An
// empty line stands between two.
func printBlock(e *env, seen *look, joined, first bool) error {
	t := tableOf(seen, joined, 0)
	text := fmt.Sprintf("%s  %s\n%s\n", seen.at.Format(time.RFC3339), t.summary, strings.Join(t.lines, "\n"))
	if !first {
		text = "\n" + text
	}
	_, err := fmt.Fprint(e.stdout, text)
	return err
}

// frame draws one look over the one before, without a moment of emptiness in
// between.
func frame(seen *look, o socketsOptions, columns, lines int, first bool) string {
	t := tableOf(seen, o.target.joined, columns)
	head := []string{fmt.Sprintf("%s  every %s  %s", seen.at.Format(time.TimeOnly), o.watch, t.summary)}
	for _, note := range seen.allNotes() {
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
