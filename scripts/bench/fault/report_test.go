// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// The last line is the figures of the rounds, counted from the verdict.
func TestReportEndsWithItsFigures(t *testing.T) {
	due := mono.Instant(time.Hour)
	at := func(values ...int) (list []mono.Instant) {
		for _, v := range values {
			list = append(list, due.Add(time.Duration(v)*time.Millisecond))
		}
		return list
	}
	r := &report{Applications: 4}
	r.add(newRound([][]mono.Instant{at(9, 3), at(5), at(7)}, 0, due))
	r.add(newRound([][]mono.Instant{at(2), at(4, 60), at(1)}, 0, due))
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	want := []*round{
		{Told: 4, FirstMS: 3, MedianMS: 7, P99MS: 9, LastMS: 9, LastByKindMS: map[string]float64{"console": 9, "pass-through": 5, "proxy": 7}},
		{Told: 4, FirstMS: 1, MedianMS: 4, P99MS: 60, LastMS: 60, LastByKindMS: map[string]float64{"console": 2, "pass-through": 60, "proxy": 1}},
	}
	if diff := cmp.Diff(want, got.Rounds); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if want := (summary{9, 60, 60}); got.LastMS != want {
		t.Errorf("last %+v, want %+v", got.LastMS, want)
	}
	if !strings.Contains(out.String(), "beyond 50 ms") {
		t.Error("a round that took too long is not marked")
	}
}

// What must not happen ends the run with an error.
func TestReportVerdict(t *testing.T) {
	for want, change := range map[string]func(*report){
		"3 of 4 applications got":   func(r *report) { r.Rounds[0].Told = 3 },
		"2.0 ms before the verdict": func(r *report) { r.Rounds[0].FirstMS = -2 },
		"1 applications of the oth": func(r *report) { r.Disturbed = 1 },
	} {
		r := &report{Applications: 4, Rounds: []*round{{Told: 4}}}
		change(r)
		if err := r.verdict(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}
