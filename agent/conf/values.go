// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is one parameter's value in every form that its type has.
type value struct {
	text   string // as SHOW CONFIG prints it
	number int64
	yes    bool
	list   []string
	file   string // where it was set, empty for a default
	line   int    // in file, 0 when it has no lines
}

// Values are the parameters of a table after reading: what a file set, and the
// defaults of the rest. Asking for a name that the table does not have is a
// mistake in the program and panics. Values are not changed after Read and may be
// read concurrently.
type Values struct {
	table  Table
	values map[string]value
}

// Read checks settings against the table and returns all values, also beside an
// error: a wrong setting then has no effect. Later entries override earlier ones,
// so the entries of several sources are joined in rising order of rank ([Parse]
// refuses duplicates inside one file). The errors (at most the first 20; reading
// ends there) are each an *[Error], joined by [errors.Join].
func (t Table) Read(entries []Entry) (*Values, error) {
	v := &Values{table: t, values: make(map[string]value)}
	var errs []error
	for i := range t {
		if _, family := t[i].Family(); !family {
			v.values[t[i].Name] = t[i].defaultValue()
		}
	}
	for _, e := range entries {
		err := v.set(e)
		if err == nil {
			continue
		}
		if len(errs) == maxErrors {
			errs = append(errs, tooMany(e.File))
			break
		}
		errs = append(errs, &Error{File: e.File, Line: e.Line, Text: err.Error()})
	}
	return v, errors.Join(errs...)
}

func (v *Values) set(e Entry) error {
	p, _, err := v.table.lookup(e.Name)
	if err != nil {
		return err
	}
	val, err := p.parse(e.Value)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	val.file, val.line = e.File, e.Line
	v.values[e.Name] = val
	return nil
}

func (v *Values) get(name string, kinds ...Kind) value {
	p, number, err := v.table.lookup(name)
	if err != nil || !slices.Contains(kinds, p.Kind) {
		panic("conf: " + name + " is not a parameter of this type")
	}
	val, ok := v.values[name]
	if !ok && number >= 0 {
		return p.defaultValue()
	}
	return val
}

// Int returns the value of an Integer.
func (v *Values) Int(name string) int64 { return v.get(name, Integer).number }

// Duration returns the value of a Duration.
func (v *Values) Duration(name string) time.Duration {
	return time.Duration(v.get(name, Duration).number)
}

// Bool returns the value of a Bool.
func (v *Values) Bool(name string) bool { return v.get(name, Bool).yes }

// Text returns the value of a String or an Enum.
func (v *Values) Text(name string) string { return v.get(name, String, Enum).text }

// List returns the value of a List.
func (v *Values) List(name string) []string { return slices.Clone(v.get(name, List).list) }

// Origin returns "file:line" of where a parameter was set, or "" when it has its
// default.
func (v *Values) Origin(name string) string {
	val := v.values[name]
	if val.line == 0 {
		return val.file
	}
	return val.file + ":" + strconv.Itoa(val.line)
}

// Fail returns an [*Error] that blames the line where a parameter was set, for
// checks that look at several parameters.
func (v *Values) Fail(name, format string, args ...any) error {
	val := v.values[name]
	return &Error{File: val.file, Line: val.line, Text: name + ": " + fmt.Sprintf(format, args...)}
}

// Numbers returns, in rising order, the numbers for which a parameter of the
// family was set ("backend_host*").
func (v *Values) Numbers(family string) []int {
	var numbers []int
	for name := range v.values {
		if p, n, err := v.table.lookup(name); err == nil && n >= 0 && p.Name == family {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// Row is one line of SHOW CONFIG.
type Row struct {
	Name    string
	Value   string // in use
	File    string // "file:line" where it is set; the base name of the file it can be set in when it is not
	Default string // empty when there is none
	Context string // restart or reload
}

// Rows returns all parameters in the order of the table; of a family those that
// were set, by number.
func (v *Values) Rows() []Row {
	byParam := make(map[string][]string)
	for name := range maps.Keys(v.values) {
		if p, _, err := v.table.lookup(name); err == nil {
			byParam[p.Name] = append(byParam[p.Name], name)
		}
	}
	var rows []Row
	for i := range v.table {
		p := &v.table[i]
		names := byParam[p.Name]
		slices.SortFunc(names, compareNames)
		for _, name := range names {
			rows = append(rows, v.row(p, name))
		}
	}
	return rows
}

func (v *Values) row(p *Param, name string) Row {
	r := Row{
		Name:    name,
		Value:   v.values[name].text,
		File:    v.Origin(name),
		Default: p.defaultValue().text,
		Context: p.Context.String(),
	}
	if r.File == "" {
		r.File = p.File
	}
	return r
}

// compareNames orders backend_host2 before backend_host10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
