// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// helpOf returns what a program, or a command of one, prints with --help.
func (g *generator) helpOf(command string) (string, error) {
	words := strings.Fields(command)
	out, err := exec.Command(filepath.Join(g.bin, words[0]), append(words[1:], "--help")...).Output()
	if err != nil {
		return "", fmt.Errorf("%s --help: %w", command, err)
	}
	return string(out), nil
}

// block is a part of a help text between blank lines or headings.
type block struct {
	heading string // without its colon
	lines   []string
}

// indented reports whether it is a list or an example, and no paragraph.
func (b *block) indented() bool { return len(b.lines) > 0 && strings.HasPrefix(b.lines[0], "  ") }

// blocks takes a help text apart. A heading is a line of its own that ends with a
// colon; other lines that are not indented are paragraphs.
func blocks(help string) []block {
	var all []block
	var now block
	flush := func() {
		if len(now.lines) > 0 || now.heading != "" {
			all = append(all, now)
		}
		now = block{}
	}
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, " \n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case line == "":
			flush()
		case !indented && strings.HasSuffix(line, ":") && len(now.lines) == 0:
			flush()
			now.heading = strings.TrimSuffix(line, ":")
		case len(now.lines) > 0 && indented != now.indented():
			flush()
			now.lines = append(now.lines, line)
		default:
			now.lines = append(now.lines, line)
		}
	}
	flush()
	return all
}

// column returns where the descriptions of a list begin; 0: it is none.
func (b *block) column() int {
	for _, line := range b.lines { // below the description above them
		if n := indent(line); n > 4 {
			return n
		}
	}
	for _, line := range b.lines { // behind the widest gap
		if i := strings.Index(line[2:], "  "); i > 0 {
			return 2 + i + indent(line[2+i:])
		}
	}
	return 0
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// item is one entry of a list.
type item struct{ term, text string }

// items reads a list whose descriptions begin at a column; a term that reaches
// into it has its description on the lines below.
func (b *block) items(column int) []item {
	var all []item
	for _, line := range b.lines {
		switch {
		case indent(line) >= column && len(all) > 0:
			last := &all[len(all)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(line))
		case len(line) > column && line[column-1] == ' ':
			all = append(all, item{strings.TrimSpace(line[:column]), strings.TrimSpace(line[column:])})
		default:
			all = append(all, item{term: strings.TrimSpace(line)})
		}
	}
	return all
}

// synopsis is the usage lines of a help text.
func synopsis(help string) string {
	var out strings.Builder
	for _, b := range blocks(help) {
		if b.heading != "Usage" {
			continue
		}
		for _, usage := range b.lines {
			program, rest, _ := strings.Cut(strings.TrimSpace(usage), " ")
			fmt.Fprintf(&out, ".Nm %s\n%s", program, line(strings.Join(strings.Fields(rest), " ")))
		}
	}
	return out.String()
}

// usage is the same as a display.
func usage(help string) string {
	for _, b := range blocks(help) {
		if b.heading == "Usage" {
			return literal(b.lines)
		}
	}
	return ""
}

// describe is everything else of a help text.
func describe(help string) string {
	var out strings.Builder
	for _, b := range blocks(help) {
		if b.heading == "Usage" {
			continue
		}
		if out.Len() > 0 && (!b.indented() || b.heading != "" || b.column() > 0) {
			out.WriteString(".Pp\n")
		}
		b.write(&out)
	}
	return out.String()
}

func (b *block) write(out *strings.Builder) {
	if b.heading != "" {
		out.WriteString(running(b.heading + ":"))
	}
	column := b.column()
	switch {
	case len(b.lines) == 0:
	case !b.indented():
		out.WriteString(running(strings.Join(b.lines, " ")))
	case column > 0:
		out.WriteString(".Bl -tag -width Ds -compact\n")
		for _, i := range b.items(column) {
			fmt.Fprintf(out, ".It %s\n%s", argument(i.term), running(i.text))
		}
		out.WriteString(".El\n")
	default:
		out.WriteString(literal(b.lines))
	}
}
