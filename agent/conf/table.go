// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is the type of a parameter.
type Kind uint8

// The types. An Integer, Duration, Bool and Enum is read by the Parse function of
// that name; a List is read by [ParseList]; a String is taken as it is.
const (
	String Kind = iota
	Integer
	Duration
	Bool
	Enum
	List
)

// Context says what a change of a parameter needs.
type Context uint8

// The contexts. Both daemons read a Reload parameter again at SIGHUP.
const (
	Restart Context = iota
	Reload
)

// String returns the word that SHOW CONFIG prints.
func (c Context) String() string {
	if c == Reload {
		return "reload"
	}
	return "restart"
}

// Param describes one parameter. A name that ends in "*" is a family: the
// parameters of that name with a number in its place (backend_host0).
type Param struct {
	Name    string
	Kind    Kind
	Default string        // as it would be written in the file, without quotes
	Min     int64         // of an Integer; of a Duration in nanoseconds
	Max     int64         // the same; 0 means no limit but the type's
	Unit    time.Duration // of a plain number of a Duration; 0 means seconds
	Words   []string      // of an Enum
	File    string        // where it is set: the base name of a file
	Context Context
	About   string // one sentence: what it is
	Low     string // what too low a value costs; empty when there is no low
	High    string // what too high a value costs; empty when there is no high

	// Check, when set, looks at a value of the right type and returns what
	// was expected instead. It serves String and List parameters.
	Check func(value string) error
}

// Family reports whether p stands for numbered parameters, and their prefix.
func (p *Param) Family() (prefix string, ok bool) { return strings.CutSuffix(p.Name, "*") }

// Table is all parameters of a daemon, in the order in which they are shown.
type Table []Param

// MaxNumber is the highest number in the name of a parameter of a family.
const MaxNumber = 9999

// lookup finds the parameter of a name and the number in it (-1 for none).
func (t Table) lookup(name string) (*Param, int, error) {
	for i := range t {
		prefix, family := t[i].Family()
		if !family && t[i].Name == name {
			return &t[i], -1, nil
		}
		if digits, ok := strings.CutPrefix(name, prefix); family && ok {
			if n, err := number(digits); err == nil {
				return &t[i], n, nil
			} else if digits == "" || strings.Trim(digits, "0123456789") == "" {
				return nil, 0, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if near := t.Nearest(name); near != "" {
		return nil, 0, fmt.Errorf("unknown parameter %s, perhaps %s is meant", clip(name), near)
	}
	return nil, 0, fmt.Errorf("unknown parameter %s", clip(name))
}

// number reads the digits of backend_host12: zero-based, without leading zeros.
func number(digits string) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n > MaxNumber || strconv.Itoa(n) != digits {
		return 0, fmt.Errorf("expected a number from 0 to %d without leading zeros at the end of the name", MaxNumber)
	}
	return n, nil
}

// Nearest returns the one parameter that is at most two typing errors away from a
// name, and nothing when there is none.
func (t Table) Nearest(name string) string {
	best, bestDistance := "", 3
	if len(name) > 64 {
		return ""
	}
	for i := range t {
		candidate, family := t[i].Family()
		known := name
		if family {
			known = strings.TrimRight(name, "0123456789")
		}
		if d := distance(known, candidate); d < bestDistance {
			best, bestDistance = t[i].Name, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// parse reads a value as p's type.
func (p *Param) parse(s string) (v value, err error) {
	v.text = s
	switch p.Kind {
	case Integer:
		lo, hi := p.limits()
		v.number, err = ParseInt(s, lo, hi)
		v.text = strconv.FormatInt(v.number, 10)
	case Duration:
		var d time.Duration
		lo, hi := p.limits()
		d, err = ParseDuration(s, p.unit(), time.Duration(lo), time.Duration(hi))
		v.number, v.text = int64(d), FormatDuration(d)
	case Bool:
		v.yes, err = ParseBool(s)
		v.text = map[bool]string{true: "on", false: "off"}[v.yes]
	case Enum:
		v.text, err = ParseWord(s, p.Words)
	case List:
		v.list, err = ParseList(s)
		v.text = strings.Join(v.list, ", ")
	}
	if err == nil && p.Check != nil {
		err = p.Check(v.text)
	}
	return v, err
}

// defaultValue panics when the table contradicts itself.
func (p *Param) defaultValue() value {
	if p.Default == "" {
		return value{}
	}
	v, err := p.parse(p.Default)
	if err != nil {
		panic("conf: default of " + p.Name + ": " + err.Error())
	}
	return v
}

func (p *Param) limits() (lo, hi int64) {
	if p.Max == 0 {
		return p.Min, math.MaxInt64
	}
	return p.Min, p.Max
}

func (p *Param) unit() time.Duration {
	if p.Unit == 0 {
		return time.Second
	}
	return p.Unit
}

// TypeName returns the name of the parameter's type for people.
func (p *Param) TypeName() string {
	return [...]string{"string", "integer", "duration", "boolean", "enum", "list"}[p.Kind]
}
