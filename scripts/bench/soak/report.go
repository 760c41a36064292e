// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// report is all that was seen.
type report struct {
	IntervalMS    float64  `json:"interval_ms"`
	TimeoutMS     float64  `json:"timeout_ms"`
	LossPercent   float64  `json:"loss_percent"`
	Minutes       []minute `json:"minutes"`
	Total         minute   `json:"total"`
	FalseVerdicts int      `json:"false_verdicts"`
	Ended         []ended  `json:"ended"`
	machine.Facts
}

// minute is what happened between two readings.
type minute struct {
	Number   int     `json:"minute,omitempty"`
	Seconds  float64 `json:"seconds"`
	ToServer path    `json:"to_server"`
	ToClient path    `json:"to_client"`
	// Missed is how many frames conmgr noticed to be missing by their numbers.
	Missed uint64 `json:"conmgr_missed"`
	Ended  int    `json:"sessions_ended"`
	// OversleepMS is the longest that the machine let a plain thread wait for its
	// turn.
	OversleepMS float64 `json:"oversleep_ms"`
}

// path is one direction of heartbeats.
type path struct {
	Sent        int     `json:"sent"`
	Received    int     `json:"received"`
	Dropped     uint64  `json:"dropped"` // by the injector
	LossPercent float64 `json:"loss_percent"`
	// Extra are the frames sent besides the beats of the schedule: questions for
	// late ones, answers, changes of state.
	Extra int `json:"extra"`
	// Late are the silences on the receiving host of more than 1.25 intervals.
	Late      int     `json:"late"`
	LongestMS float64 `json:"longest_gap_ms"`
}

func newReport(ctx context.Context) *report {
	return &report{
		IntervalMS: millis(interval), TimeoutMS: millis(timeout), LossPercent: lossPercent,
		Minutes: []minute{}, Ended: []ended{}, Facts: machine.Look(ctx),
	}
}

// between returns what happened from one reading to the next.
func between(last, next reading) minute {
	m := minute{Seconds: round(next.at.Sub(last.at).Seconds()), Missed: next.missed - last.missed, OversleepMS: millis(next.oversleep)}
	m.ToServer = pathBetween(last.toServer, next.toServer, m.Seconds)
	m.ToClient = pathBetween(last.toClient, next.toClient, m.Seconds)
	return m
}

func pathBetween(last, next direction, seconds float64) path {
	p := path{
		Sent: next.sent - last.sent, Received: next.received - last.received, Dropped: next.dropped - last.dropped,
		Late: next.gaps.Late, LongestMS: millis(next.gaps.Longest),
	}
	p.Extra = max(0, p.Sent-int(seconds/interval.Seconds()))
	p.LossPercent = percent(p.Dropped, uint64(p.Received))
	return p
}

// percent is the share of dropped in all.
func percent(dropped, received uint64) float64 {
	if dropped+received == 0 {
		return 0
	}
	return round(100 * float64(dropped) / float64(dropped+received))
}

// add notes and prints a minute.
func (r *report) add(out io.Writer, last, next reading, sessionsEnded int) {
	m := between(last, next)
	m.Number, m.Ended = len(r.Minutes)+1, sessionsEnded
	r.Minutes = append(r.Minutes, m)
	m.print(out, fmt.Sprint(m.Number))
}

// close sums up.
func (r *report) close(a *audience) {
	for _, m := range r.Minutes {
		r.Total.Seconds = round(r.Total.Seconds + m.Seconds)
		r.Total.Missed += m.Missed
		r.Total.OversleepMS = max(r.Total.OversleepMS, m.OversleepMS)
		r.Total.ToServer.add(m.ToServer)
		r.Total.ToClient.add(m.ToClient)
	}
	r.Ended = append(r.Ended, a.all()...)
	r.Total.Ended, r.FalseVerdicts = len(r.Ended), len(r.Ended)
}

func (p *path) add(m path) {
	p.Sent += m.Sent
	p.Received += m.Received
	p.Dropped += m.Dropped
	p.Extra += m.Extra
	p.Late += m.Late
	p.LongestMS = max(p.LongestMS, m.LongestMS)
	p.LossPercent = percent(p.Dropped, uint64(p.Received))
}

// head explains the table.
func (r *report) head(out io.Writer) {
	fmt.Fprintf(out, "UDP with keys, %v x %d, %d processors busy, %d %% of all packets lost each way. Load before: %s.\n\n"+
		"passed, longest: heartbeat frames and the longest gap between two, as the kernel of the receiving host saw them\n"+
		"dropped: by the counters of the injector; late: silences of more than 1.25 intervals\n"+
		"extra: frames beyond the schedule (questions for late beats, and answers); ended: sessions, each a false verdict\n"+
		"machine: how long a thread that only sleeps had to wait for a processor at most\n\n",
		interval, timeout/interval, r.Cores, lossPercent, r.Load)
	line := "%6s | %7s %7s %6s %5s %5s %9s | %7s %7s %6s %5s %5s %9s | %6s %9s %5s\n"
	fmt.Fprintf(out, line, "", "to", "server", "", "", "", "", "to", "client", "", "", "", "", "conmgr", "", "")
	fmt.Fprintf(out, line, "minute", "passed", "dropped", "loss", "late", "extra", "longest",
		"passed", "dropped", "loss", "late", "extra", "longest", "missed", "machine", "ended")
}

func (m *minute) print(out io.Writer, name string) {
	fmt.Fprintf(out, "%6s", name)
	for _, p := range []path{m.ToServer, m.ToClient} {
		fmt.Fprintf(out, " | %7d %7d %4.1f %% %5d %5d %6.1f ms", p.Received, p.Dropped, p.LossPercent, p.Late, p.Extra, p.LongestMS)
	}
	fmt.Fprintf(out, " | %6d %6.1f ms %5d\n", m.Missed, m.OversleepMS, m.Ended)
}

// print ends the table and writes one line for programs.
func (r *report) print(out io.Writer) error {
	r.Total.print(out, "all")
	fmt.Fprintf(out, "\n%d false verdicts in %v\n\n", r.FalseVerdicts, time.Duration(r.Total.Seconds*float64(time.Second)).Round(time.Second))
	return json.NewEncoder(out).Encode(r)
}

// check returns an error when the soak has proven nothing.
func (r *report) check() error {
	for _, p := range []path{r.Total.ToServer, r.Total.ToClient} {
		if p.Received == 0 || p.Dropped == 0 {
			return errors.New("no heartbeat passed or none was lost: nothing is proven")
		}
		if off := p.Sent - p.Received - int(p.Dropped); off < -slack || off > slack {
			return fmt.Errorf("%d frames sent, %d received, %d dropped: the counters do not agree", p.Sent, p.Received, p.Dropped)
		}
	}
	return nil
}

// slack is how many frames may be under way while the counters are read one
// after the other.
const slack = 10

func millis(d time.Duration) float64 { return round(d.Seconds() * 1000) }

// round keeps two digits behind the point.
func round(v float64) float64 { return math.Round(v*100) / 100 }
