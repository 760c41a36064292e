// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a file. They are far above any real configuration; they keep a file
// that is no configuration from becoming a megabyte of errors.
const (
	MaxFile   = 1 << 20 // bytes in a file
	MaxLine   = 8192    // bytes in a line
	maxErrors = 20      // errors told about one file
)

// Entry is one setting of a file, its value not yet read as any type.
type Entry struct {
	Name  string // folded to lower case
	Value string // without quotes
	File  string
	Line  int // from 1
}

// Error is what is wrong with one line, or with a file as a whole.
type Error struct {
	File string
	Line int    // from 1; 0 when no line is to blame
	Text string // says what was expected
}

// Error returns "file:line: text".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

func tooMany(file string) error {
	return &Error{File: file, Text: "too many errors, the rest is not told"}
}

// Parse splits the text of a file into its settings, in their order. file is
// only a name for errors. Every wrong line is told (at most the first 20), as
// *Error values joined by [errors.Join]; the entries are those of the good lines.
func Parse(file string, text []byte) ([]Entry, error) {
	if len(text) > MaxFile {
		return nil, &Error{File: file, Text: fmt.Sprintf("file of %d bytes: expected at most %d", len(text), MaxFile)}
	}
	p := parser{file: file, first: make(map[string]int)}
	for line := range bytes.Lines(text) {
		p.line++
		p.read(bytes.TrimSuffix(line, []byte("\n")))
		if len(p.errs) > maxErrors {
			p.errs[maxErrors] = tooMany(file)
			break
		}
	}
	return p.entries, errors.Join(p.errs...)
}

type parser struct {
	file    string
	line    int
	first   map[string]int // the line of each name
	entries []Entry
	errs    []error
}

func (p *parser) fail(format string, args ...any) {
	p.errs = append(p.errs, &Error{File: p.file, Line: p.line, Text: fmt.Sprintf(format, args...)})
}

func (p *parser) read(raw []byte) {
	if err := checkBytes(raw); err != nil {
		p.fail("%v", err)
		return
	}
	line := trim(string(raw))
	if line == "" || line[0] == '#' {
		return
	}
	name, value, err := split(line)
	if err != nil {
		p.fail("%v", err)
		return
	}
	if line, ok := p.first[name]; ok {
		p.fail("%s is already set in line %d: expected it once", name, line)
		return
	}
	p.first[name] = p.line
	p.entries = append(p.entries, Entry{Name: name, Value: value, File: p.file, Line: p.line})
}

// checkBytes refuses what is no line of text.
func checkBytes(line []byte) error {
	if len(line) > MaxLine {
		return fmt.Errorf("line of %d bytes: expected at most %d", len(line), MaxLine)
	}
	if !utf8.Valid(line) {
		return errors.New("invalid UTF-8: expected text in UTF-8")
	}
	for _, b := range line {
		if b < ' ' && b != '\t' && b != '\r' || b == 0x7f {
			return fmt.Errorf("control character 0x%02x: expected text", b)
		}
	}
	return nil
}

// split takes apart a line that has neither blanks around it nor is a comment.
func split(line string) (name, value string, err error) {
	end := 0
	for end < len(line) && isNameByte(line[end], end == 0) {
		end++
	}
	if end == 0 {
		return "", "", fmt.Errorf("expected a parameter name, found %s", excerpt(line))
	}
	name = strings.ToLower(line[:end])
	rest := trim(line[end:])
	if rest == "" || rest[0] != '=' {
		return "", "", fmt.Errorf(`expected "=" behind %s, found %s`, name, excerpt(rest))
	}
	value, rest, err = cutValue(trim(rest[1:]))
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", name, err)
	}
	if rest = trim(rest); rest != "" && rest[0] != '#' {
		return "", "", fmt.Errorf("%s: expected nothing behind the value, found %s (a value with blanks is enclosed in ')", name, excerpt(rest))
	}
	return name, value, nil
}

// cutValue takes the value off the front of s.
func cutValue(s string) (value, rest string, err error) {
	if s == "" || s[0] == '#' {
		return "", "", errors.New("expected a value behind =")
	}
	if s[0] == '\'' {
		return cutQuoted(s[1:])
	}
	end := strings.IndexAny(s, " \t\r#'\"=")
	if end < 0 {
		return s, "", nil
	}
	if strings.IndexByte("'\"=", s[end]) >= 0 {
		return "", "", fmt.Errorf("found %c in a value without quotes: expected the value enclosed in '", s[end])
	}
	return s[:end], s[end:], nil
}

// cutQuoted reads up to the closing quote; s starts behind the opening one.
func cutQuoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "'")
		if !found {
			return "", "", errors.New("unterminated quote: expected ' at the end of the value")
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, "'") {
			return b.String(), after, nil
		}
		b.WriteByte('\'')
		s = after[1:]
	}
}

func isNameByte(b byte, first bool) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', b == '_':
		return true
	case '0' <= b && b <= '9', b == '.':
		return !first
	}
	return false
}

func trim(s string) string { return strings.Trim(s, " \t\r") }

// excerpt quotes the start of s for an error.
func excerpt(s string) string {
	const limit = 40
	if s == "" {
		return "nothing"
	}
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q...", s[:cut])
}
