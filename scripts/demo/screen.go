// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// width is how long a line may be.
const width = 79

// style is how text looks on a terminal with colours.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "1;31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// screen writes for people. It is for one goroutine.
type screen struct {
	w        io.Writer
	colors   bool
	pictures bool
	gapped   bool // the last line is empty
}

// newScreen shows pictures when the file is a terminal, and colours unless the
// user does not want any (see no-color.org).
func newScreen(f *os.File, getenv func(string) string) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	terminal := err == nil && getenv("TERM") != "dumb"
	return &screen{w: f, pictures: terminal, colors: terminal && getenv("NO_COLOR") == ""}
}

// paint returns text in a style.
func (s *screen) paint(st style, text string) string {
	if !s.colors || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// printf prints whole lines.
func (s *screen) printf(format string, args ...any) {
	fmt.Fprintf(s.w, format, args...)
	s.gapped = false
}

// gap leaves one empty line.
func (s *screen) gap() {
	if !s.gapped {
		s.printf("\n")
	}
	s.gapped = true
}

// head starts a part of the story.
func (s *screen) head(format string, args ...any) {
	s.gap()
	s.printf("%s\n", s.paint(bold, fmt.Sprintf(format, args...)))
}

// step says what was done.
func (s *screen) step(format string, args ...any) { s.printf("  %s\n", fmt.Sprintf(format, args...)) }

// command shows a command line and what it has written.
func (s *screen) command(line, output string) {
	s.printf("  %s\n", s.paint(cyan, "$ "+line))
	for text := range strings.Lines(strings.TrimRight(output, "\n") + "\n") {
		s.printf("    %s\n", cut(strings.TrimRight(text, "\n"), width-4))
	}
}

// failure is the last line of a demo that did not work.
func (s *screen) failure(err error) {
	s.gap()
	s.printf("%s %v\n", s.paint(red, "FAILED:"), err)
}

// cut shortens a text that is longer than max characters.
func cut(text string, max int) string {
	if utf8.RuneCountInString(text) <= max {
		return text
	}
	return string([]rune(text)[:max-3]) + "..."
}

// pad fills a text with blanks up to the right edge of its column.
func pad(text string, to int) string {
	return text + strings.Repeat(" ", max(0, to-utf8.RuneCountInString(text)))
}
