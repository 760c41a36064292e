// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"unicode/utf8"
)

// leastDetail is how narrow the column of details may become before they go to
// lines of their own.
const leastDetail = 30

// findingsText is the table of findings on lines of so many characters, 0 for no
// limit. Nothing is cut, since an advice is there to be copied: details are broken
// between words.
func findingsText(findings []finding, limit int) string {
	columns := []column{{heading: "check"}, {heading: "result"}}
	var rows [][]string
	for _, f := range findings {
		rows = append(rows, []string{f.Check, string(f.Result)})
	}
	l := fit(columns, rows, 0)
	p := findingsPrinter{indent: l.width[0] + gap + l.width[1] + gap, limit: limit}
	p.below = limit > 0 && limit-p.indent < leastDetail
	if p.below {
		p.indent = 2
	}
	p.block(l.headings(), "detail")
	for i, f := range findings {
		p.block(l.line(rows[i]), f.Detail)
		if f.Advice != nil {
			p.block("", "what to do: "+*f.Advice)
		}
	}
	return p.b.String()
}

// findingsPrinter writes the third column, beside the others or below them.
type findingsPrinter struct {
	b      strings.Builder
	indent int // of the column
	limit  int // characters in a line; 0: any number
	below  bool
}

// block puts a text beside the first two columns, which may be empty.
func (p *findingsPrinter) block(first, text string) {
	if p.below && first != "" {
		p.b.WriteString(first + "\n")
		first = ""
	}
	width := 0
	if p.limit > 0 {
		width = p.limit - p.indent
	}
	for i, line := range broken(text, width) {
		if i > 0 {
			first = ""
		}
		pad := strings.Repeat(" ", p.indent-utf8.RuneCountInString(first))
		p.b.WriteString(strings.TrimRight(first+pad+line, " ") + "\n")
	}
}

// broken breaks a text between words; a word that is longer than a line stays
// whole. A width of 0 is no limit.
func broken(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
