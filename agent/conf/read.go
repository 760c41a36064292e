// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseInt reads a decimal number from lo to hi.
func ParseInt(s string, lo, hi int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("expected a number from %d to %d, found %s", lo, hi, excerpt(s))
	}
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%s is out of range: expected %d to %d", clip(s), lo, hi)
	}
	return n, nil
}

// units are PostgreSQL's units of time (guc.c, time_unit_conversion_table), the
// largest first.
var units = []struct {
	name string
	unit time.Duration
}{
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"min", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
	{"us", time.Microsecond},
}

// ParseDuration reads a time from lo to hi: a plain number counts in unit, a
// number may also bring one of PostgreSQL's units (us, ms, s, min, h, d), with or
// without a blank between.
func ParseDuration(s string, unit, lo, hi time.Duration) (time.Duration, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	if suffix := s[len(digits):]; suffix != "" {
		unit = unitOf(suffix)
		digits = trim(digits)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if unit == 0 || err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("expected a time like 250ms, 2s or 1min, found %s", excerpt(s))
	}
	if err != nil || n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
		return 0, durationRange(s, lo, hi)
	}
	d := time.Duration(n) * unit
	if d < lo || d > hi {
		return 0, durationRange(s, lo, hi)
	}
	return d, nil
}

func durationRange(s string, lo, hi time.Duration) error {
	return fmt.Errorf("%s is out of range: expected %s to %s", clip(s), FormatDuration(lo), FormatDuration(hi))
}

func unitOf(name string) time.Duration {
	for _, u := range units {
		if u.name == name {
			return u.unit
		}
	}
	return 0
}

// FormatDuration prints a time in the largest unit that leaves a whole number, as
// PostgreSQL's SHOW does.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	for _, u := range units {
		if d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return d.String()
}

// ParseBool reads PostgreSQL's spellings of a boolean: on, off, true, false, yes,
// no, 1, 0, and any prefix that is not ambiguous, in any case (parse_bool_with_len
// in src/backend/utils/adt/bool.c).
func ParseBool(s string) (bool, error) {
	word := strings.ToLower(s)
	for _, b := range []struct {
		word  string
		least int // letters that make a prefix unambiguous
		value bool
	}{
		{"on", 2, true}, {"off", 2, false}, {"true", 1, true}, {"false", 1, false},
		{"yes", 1, true}, {"no", 1, false}, {"1", 1, true}, {"0", 1, false},
	} {
		if len(word) >= b.least && strings.HasPrefix(b.word, word) {
			return b.value, nil
		}
	}
	return false, fmt.Errorf("expected on or off, found %s", excerpt(s))
}

// ParseWord reads one of words in any case and returns it as it stands there.
func ParseWord(s string, words []string) (string, error) {
	for _, w := range words {
		if strings.EqualFold(s, w) {
			return w, nil
		}
	}
	return "", fmt.Errorf("expected %s, found %s", alternatives(words), excerpt(s))
}

// ParseList splits at commas and removes the blanks around the elements. An empty
// string is an empty list; an empty element is an error.
func ParseList(s string) ([]string, error) {
	if trim(s) == "" {
		return nil, nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		if list[i] = trim(list[i]); list[i] == "" {
			return nil, fmt.Errorf("expected a list separated by single commas, found %s", excerpt(s))
		}
	}
	return list, nil
}

func alternatives(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// clip keeps a number that someone typed a thousand digits of out of an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
