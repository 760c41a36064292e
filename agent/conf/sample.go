// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// AppendSample appends a sample file with every parameter of the table: what it
// is, its type and range, what too low and too high a value cost, and a line that
// is a comment and sets the default.
func (t Table) AppendSample(dst []byte) []byte {
	for i := range t {
		p := &t[i]
		dst = append(dst, '\n')
		text := p.About
		if p.Low != "" {
			text += " Too low: " + p.Low
		}
		if p.High != "" {
			text += " Too high: " + p.High
		}
		for _, line := range wrap(text, 76) {
			dst = append(append(append(dst, "# "...), line...), '\n')
		}
		dst = append(append(append(dst, "# ("...), p.Facts()...), ")\n"...)
		name := strings.Replace(p.Name, "*", "0", 1)
		dst = append(append(dst, "#"+name+" = "...), p.literal()...)
		dst = append(dst, '\n')
	}
	return dst
}

// Facts returns type, range and context of p in one line for people.
func (p *Param) Facts() string {
	parts := []string{p.TypeName()}
	switch lo, hi := p.limits(); p.Kind {
	case Integer:
		parts = append(parts, fmt.Sprintf("%d to %d", lo, hi))
	case Duration:
		parts = append(parts, FormatDuration(time.Duration(lo))+" to "+FormatDuration(time.Duration(hi)))
		parts = append(parts, "a plain number is in "+strings.TrimPrefix(FormatDuration(p.unit()), "1"))
	case Enum:
		parts = append(parts, strings.Join(p.Words, ", "))
	}
	return strings.Join(append(parts, "needs a "+p.Context.String()), "; ")
}

// literal is p's default as the file has to spell it.
func (p *Param) literal() string {
	if p.Kind == Integer || p.Kind == Bool || p.Kind == Enum {
		return p.Default
	}
	if _, err := strconv.Atoi(p.Default); err == nil || p.Kind == Duration {
		return p.Default
	}
	return "'" + strings.ReplaceAll(p.Default, "'", "''") + "'"
}

// wrap breaks text into lines of at most width bytes, except longer words.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
