// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/figure"
)

// What agent/linkhint's TestSources measures. A situation that nothing may be told of
// has no latency.
var (
	sources    = []string{"fentry", "kprobe", "counter", "rtnetlink"}
	situations = []struct {
		name, title string
		silent      bool
	}{
		{"first", "first loss", false},
		{"throttled", "loss inside the throttle", false},
		{"admin_down", "admin down, told by rtnetlink", false},
		{"foreign", "namespace of another", true},
	}
)

// cell is where a figure belongs; an empty kernel is all of them.
type cell struct{ kernel, situation, source string }

// results are the figures of a cell.
type results struct {
	n, told int
	ms      []float64 // of those that were told, sorted
}

type sorted map[cell]*results

func sortOut(figures []figure.Figure) sorted {
	s := make(sorted)
	for _, f := range figures {
		for _, kernel := range []string{f.Kernel, ""} {
			c := cell{kernel, f.Situation, f.Source}
			if s[c] == nil {
				s[c] = new(results)
			}
			s[c].add(f)
		}
	}
	return s
}

func (r *results) add(f figure.Figure) {
	r.n++
	if f.Told {
		r.told++
		at, _ := slices.BinarySearch(r.ms, f.MS)
		r.ms = slices.Insert(r.ms, at, f.MS)
	}
}

// of returns the results of a cell, empty ones when there are none.
func (s sorted) of(kernel, situation, source string) *results {
	if r := s[cell{kernel, situation, source}]; r != nil {
		return r
	}
	return new(results)
}

// median is that of what was told, 0 for nothing.
func (r *results) median() float64 {
	switch n := len(r.ms); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (r.ms[n/2-1] + r.ms[n/2]) / 2
	default:
		return r.ms[n/2]
	}
}

func (r *results) worst() float64 {
	if len(r.ms) == 0 {
		return 0
	}
	return r.ms[len(r.ms)-1]
}

// text is what stands in the table.
func (r *results) text() string {
	switch {
	case r.n == 0:
		return "not measured"
	case r.told == 0:
		return "nothing is told"
	case r.told < r.n:
		return fmt.Sprintf("%d of %d told", r.told, r.n)
	}
	return fmt.Sprintf("%.1f / %.1f", r.median(), r.worst())
}

func printTable(out io.Writer, s sorted, kernels []string) {
	fmt.Fprint(out, "\nMilliseconds from the system call until a Watcher with this source, and rtnetlink beside it, told:\n"+
		"median / worst. The machines are emulated: 10 to 20 times slower than others, but for the throttle's second.\n"+
		"The first losses of all four sources come at the same moment.\n\n")
	for _, kernel := range kernels {
		n := s.of(kernel, situations[0].name, sources[0]).n
		fmt.Fprintf(out, "%-31s", fmt.Sprintf("Linux %s, %d times", kernel, n))
		for _, source := range sources {
			fmt.Fprintf(out, "  %-16s", source)
		}
		fmt.Fprintln(out)
		for _, situation := range situations {
			line := fmt.Sprintf("  %-29s", situation.title)
			for _, source := range sources {
				line += fmt.Sprintf("  %-16s", s.of(kernel, situation.name, source).text())
			}
			fmt.Fprintln(out, strings.TrimRight(line, " "))
		}
		fmt.Fprintln(out)
	}
}

// printJSON writes one line: the medians over all kernels, then each kernel's with the
// worst.
func printJSON(out io.Writer, s sorted, kernels []string) error {
	all := s.object("", false)
	var each object
	for _, kernel := range kernels {
		each = append(each, member{kernel, s.object(kernel, true)})
	}
	text, err := json.Marshal(append(all, member{"kernels", each}))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", text)
	return nil
}

// object has a member for each situation: milliseconds by source, or how often
// something was told that nothing may be told of.
func (s sorted) object(kernel string, worst bool) (o object) {
	for _, situation := range situations {
		var of object
		for _, source := range sources {
			r := s.of(kernel, situation.name, source)
			switch {
			case situation.silent:
				of = append(of, member{source + "_told", r.told})
			case r.n > 0:
				of = append(of, member{source + "_ms", round(r.median())})
				if worst {
					of = append(of, member{source + "_worst_ms", round(r.worst())})
				}
			}
		}
		o = append(o, member{situation.name, of})
	}
	return o
}

// round keeps two digits behind the point.
func round(v float64) float64 { return math.Round(v*100) / 100 }

// missing names the cells without a figure, or with one that does not fit.
func (s sorted) missing(kernels []string) error {
	var errs []error
	for _, kernel := range kernels {
		for _, situation := range situations {
			for _, source := range sources {
				r := s.of(kernel, situation.name, source)
				if r.n == 0 || situation.silent && r.told > 0 || !situation.silent && r.told < r.n {
					errs = append(errs, fmt.Errorf("kernel %s, %s, %s: %s", kernel, situation.title, source, r.text()))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members as they stand.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", m.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
