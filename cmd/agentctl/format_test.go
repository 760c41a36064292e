// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// jsonNames returns the names of all objects in lines of JSON, those inside
// others included.
func jsonNames(t *testing.T, lines string) []string {
	t.Helper()
	names := make(map[string]bool)
	var collect func(any)
	collect = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, item := range v {
				names[name] = true
				collect(item)
			}
		case []any:
			for _, item := range v {
				collect(item)
			}
		}
	}
	for line := range strings.Lines(lines) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		collect(v)
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0us", 45 * time.Microsecond: "45us", 999 * time.Microsecond: "999us", 1250 * time.Microsecond: "1.2ms",
		9999 * time.Microsecond: "10.0ms", 10 * time.Millisecond: "10ms", 999 * time.Millisecond: "999ms",
		time.Second: "1.0s", 59999 * time.Millisecond: "59.9s", time.Minute: "1m00s", 3599 * time.Second: "59m59s",
		time.Hour: "1h00m", 24*time.Hour - 1: "23h59m", 24 * time.Hour: "1d00h", 1000 * time.Hour: "41d16h",
	} {
		if got := short(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	columns := []column{
		{heading: "a", min: 3, tail: true, yields: 1}, {heading: "bb", rank: 2}, {heading: "c", rank: 1, right: true},
		{heading: "d", rank: 3, min: 4},
	}
	rows := [][]string{{"12345678", "xx", "1", "a long text"}, {"-", "x", "22", "-"}}
	for _, tt := range []struct {
		limit int
		want  []string
	}{
		{0, []string{"a         bb   c  d", "12345678  xx   1  a long text", "-         x   22  -"}},
		{29, []string{"a         bb   c  d", "12345678  xx   1  a long text", "-         x   22  -"}},
		{22, []string{"a         bb   c  d", "12345678  xx   1  a ..", "-         x   22  -"}},
		{21, []string{"a         bb   c", "12345678  xx   1", "-         x   22"}},
		{15, []string{"a          c", "12345678   1", "-         22"}},
		{11, []string{"a         c", "..45678   1", "-        22"}},
		{7, []string{"a     c", "..8   1", "-    22"}},
		{6, []string{"a", "..5678", "-"}},
		{1, []string{"a", "..8", "-"}},
	} {
		l := fit(columns, rows, tt.limit)
		got := []string{l.headings(), l.line(rows[0]), l.line(rows[1])}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%d columns (-want +got):\n%s", tt.limit, diff)
		}
	}
}
