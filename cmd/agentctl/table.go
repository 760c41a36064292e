// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// column is one column of a table.
type column struct {
	heading string
	right   bool // numbers: aligned to the right
	// rank decides who gets room on a narrow terminal, the lowest first. Columns
	// of rank 0 are always there.
	rank int
	// min is how far the cells may be cut to get room; 0 is not at all.
	min int
	// tail: the end of a cell says more than its beginning.
	tail bool
	// yields: it is cut rather than that columns up to this rank find no room.
	yields int
}

// gap stands between two columns.
const gap = 2

// layout is which columns are shown, and how wide.
type layout struct {
	columns []column
	width   []int // of each column; 0: not shown
}

// fit chooses a layout for the rows on lines of so many characters. 0 is no
// limit: everything is shown and nothing cut.
func fit(columns []column, rows [][]string, limit int) layout {
	l := layout{columns: columns, width: make([]int, len(columns))}
	natural := make([]int, len(columns))
	for i, c := range columns {
		natural[i] = len(c.heading)
		for _, row := range rows {
			natural[i] = max(natural[i], utf8.RuneCountInString(row[i]))
		}
	}
	if limit <= 0 {
		l.width = natural
		return l
	}
	left := limit + gap
	for _, i := range byRank(columns) {
		if l.width[i] = l.place(columns[i], natural[i], &left); l.width[i] > 0 {
			left -= l.width[i] + gap
		}
	}
	l.squeeze(-left)
	return l
}

// place returns the width of a column, 0 when there is no room: its own one when
// that much is left, or else what is, as far as it may be cut. It takes room from
// columns that yield.
func (l *layout) place(c column, natural int, left *int) int {
	if c.rank == 0 {
		return natural
	}
	wants := []int{natural}
	if c.min > 0 {
		wants = append(wants, min(natural, max(c.min, len(c.heading))))
	}
	for _, want := range wants {
		if over := want + gap - *left; over > 0 {
			*left += l.yield(over, c.rank)
		}
		if want+gap <= *left {
			return min(natural, *left-gap)
		}
	}
	return 0
}

// byRank returns the places of the columns, the most important ones first.
func byRank(columns []column) []int {
	order := make([]int, len(columns))
	for i := range columns {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(columns[a].rank, columns[b].rank) })
	return order
}

// yield takes so many characters from a column that gives way to this rank, and
// returns how many: all or none.
func (l *layout) yield(want, rank int) int {
	for i, c := range l.columns {
		if rank <= c.yields && l.width[i]-c.min >= want {
			l.width[i] -= want
			return want
		}
	}
	return 0
}

// squeeze takes characters from the columns that are always there, the widest
// first.
func (l *layout) squeeze(over int) {
	for ; over > 0; over-- {
		widest := -1
		for i, c := range l.columns {
			if c.min > 0 && l.width[i] > c.min && (widest < 0 || l.width[i] > l.width[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		l.width[widest]--
	}
}

// holds reports whether the row can be shown in full in the columns as they are.
func (l *layout) holds(row []string) bool {
	for i, cell := range row {
		if l.width[i] > 0 && utf8.RuneCountInString(cell) > l.width[i] {
			return false
		}
	}
	return true
}

// missing returns the headings of the columns for which there was no room.
func (l *layout) missing() []string {
	var names []string
	for i, c := range l.columns {
		if l.width[i] == 0 {
			names = append(names, c.heading)
		}
	}
	return names
}

// summary is what stands below a table: how much there is, and which columns are
// missing.
func summary(n int, what string, l *layout) string {
	text := plural(n, what)
	if missing := l.missing(); len(missing) > 0 {
		text += "; no room for " + strings.Join(missing, ", ")
	}
	return text
}

// wrap breaks a text between words into lines of so many characters; 0 is no
// limit.
func wrap(text string, limit int) string {
	if limit <= 0 {
		return text
	}
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > limit:
			b.WriteString("\n  ")
			used = 2
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

// headings is the first line of the table.
func (l *layout) headings() string {
	row := make([]string, len(l.columns))
	for i, c := range l.columns {
		row[i] = c.heading
	}
	return l.line(row)
}

// line puts the cells of a row under each other's, without a newline.
func (l *layout) line(row []string) string {
	var b strings.Builder
	for i, c := range l.columns {
		if l.width[i] == 0 {
			continue
		}
		cell := cut(cli.Printable(row[i]), l.width[i], c.tail)
		pad := strings.Repeat(" ", l.width[i]-utf8.RuneCountInString(cell))
		if c.right {
			cell = pad + cell
		} else {
			cell += pad
		}
		if b.Len() > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		b.WriteString(cell)
	}
	return strings.TrimRight(b.String(), " ")
}

// cut shortens a text to a width of at least 1, with dots where something is
// missing.
func cut(s string, width int, tail bool) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	dots := strings.Repeat(".", min(2, width))
	keep := width - len(dots)
	if tail {
		return dots + string(runes[len(runes)-keep:])
	}
	return string(runes[:keep]) + dots
}

// dash is what a cell shows when there is nothing to show.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
