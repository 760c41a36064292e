// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// twoReadings are a minute apart.
func twoReadings() (last, next reading) {
	at := time.Unix(1000, 0)
	last = reading{
		at: at, missed: 3,
		toServer: direction{sent: 10, received: 8, dropped: 2},
		toClient: direction{sent: 20, received: 20},
	}
	next = reading{
		at: at.Add(time.Minute), missed: 123, oversleep: 9 * time.Millisecond,
		toServer: direction{sent: 1510, received: 1358, dropped: 152,
			gaps: agenttest.Gaps{Longest: 83 * time.Millisecond, Late: 7}},
		toClient: direction{sent: 1120, received: 1120},
	}
	return last, next
}

func TestBetween(t *testing.T) {
	t.Parallel()
	want := minute{
		Seconds:  60,
		ToServer: path{Sent: 1500, Received: 1350, Dropped: 150, LossPercent: 10, Extra: 300, Late: 7, LongestMS: 83},
		ToClient: path{Sent: 1100, Received: 1100},
		Missed:   120, OversleepMS: 9,
	}
	if diff := cmp.Diff(want, between(twoReadings())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The last line is one JSON object that holds the sums and what has ended.
func TestLastLine(t *testing.T) {
	t.Parallel()
	r := newReport(t.Context())
	last, next := twoReadings()
	r.add(io.Discard, last, next, 0)
	next.toServer.gaps.Longest = time.Second
	r.add(io.Discard, last, next, 1)
	a := &audience{log: io.Discard}
	a.note(&session{name: "idle"}, errors.New("reset"))
	r.close(a)
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "1 false verdicts in 2m0s") {
		t.Errorf("the table ends in\n%s", out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	want := minute{
		Seconds:  120,
		ToServer: path{Sent: 3000, Received: 2700, Dropped: 300, LossPercent: 10, Extra: 600, Late: 14, LongestMS: 1000},
		ToClient: path{Sent: 2200, Received: 2200},
		Missed:   240, Ended: 1, OversleepMS: 9,
	}
	if diff := cmp.Diff(want, got.Total); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	if len(got.Minutes) != 2 || got.Minutes[1].Number != 2 || got.Minutes[1].Ended != 1 ||
		got.FalseVerdicts != 1 || got.Ended[0].Session != "idle" || got.IntervalMS != 50 || got.TimeoutMS != 250 {
		t.Errorf("got %+v", got)
	}
}

// A soak whose injector did nothing, or whose counters do not agree, is none.
func TestCheck(t *testing.T) {
	t.Parallel()
	good := path{Sent: 1000, Received: 900, Dropped: 100}
	for _, tt := range []struct {
		name     string
		there    path
		complain string
	}{
		{"good", good, ""},
		{"two under way", path{Sent: 1002, Received: 900, Dropped: 100}, ""},
		{"nothing lost", path{Sent: 1000, Received: 1000}, "nothing is proven"},
		{"all lost", path{Sent: 1000, Dropped: 1000}, "nothing is proven"},
		{"lost elsewhere", path{Sent: 1000, Received: 800, Dropped: 100}, "do not agree"},
		{"counted twice", path{Sent: 1000, Received: 900, Dropped: 200}, "do not agree"},
	} {
		for _, r := range []report{{Total: minute{ToServer: tt.there, ToClient: good}}, {Total: minute{ToServer: good, ToClient: tt.there}}} {
			err := r.check()
			if (err == nil) != (tt.complain == "") || err != nil && !strings.Contains(err.Error(), tt.complain) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}
