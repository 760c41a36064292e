// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// report is all that was measured. A part that was left out leaves its figures out.
type report struct {
	Direct             *quartiles `json:"direct,omitempty"`                   // select, of straight
	Again              *quartiles `json:"again,omitempty"`                    // select, straight of itself
	ProxyVsHAProxy     *quartiles `json:"proxy_vs_haproxy,omitempty"`         // select
	ProxyVsPgBouncer   *quartiles `json:"proxy_vs_pgbouncer,omitempty"`       // select
	PassVsHAProxy      *quartiles `json:"passthrough_vs_haproxy,omitempty"`   // select
	PassVsPgBouncer    *quartiles `json:"passthrough_vs_pgbouncer,omitempty"` // select
	CopyVsHAProxy      *quartiles `json:"copy_vs_haproxy,omitempty"`          // the proxy
	CopyVsPgBouncer    *quartiles `json:"copy_vs_pgbouncer,omitempty"`        // the proxy
	CopyPassVsHAProxy  *quartiles `json:"copy_passthrough_vs_haproxy,omitempty"`
	CopyDirect         *quartiles `json:"copy_direct,omitempty"` // of straight
	StormVsHAProxy     *quartiles `json:"storm_vs_haproxy,omitempty"`
	StormVsPgBouncer   *quartiles `json:"storm_vs_pgbouncer,omitempty"`
	ConnectExtraMS     *float64   `json:"connect_extra_ms,omitempty"` // the largest of the following
	DirectExtraMS      *quartiles `json:"connect_extra_direct_ms,omitempty"`
	ProxyExtraMS       *quartiles `json:"connect_extra_proxy_ms,omitempty"`
	PassExtraMS        *quartiles `json:"connect_extra_passthrough_ms,omitempty"`
	ConnectDeadFirstMS *quartiles `json:"connect_dead_first_ms,omitempty"` // direct
	LibpqDeadFirstMS   *quartiles `json:"libpq_dead_first_ms,omitempty"`

	Rounds  int                             `json:"rounds"`
	Seconds float64                         `json:"seconds"`
	Raw     map[string]map[string][]float64 `json:"raw"` // by part and way, in the order of the rounds
	machine.Facts
}

// quartiles of the values of all rounds.
type quartiles struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

func newReport(ctx context.Context, b *bench) report {
	return report{
		Rounds: b.rounds, Seconds: b.seconds.Seconds(),
		Raw: map[string]map[string][]float64{}, Facts: machine.Look(ctx),
	}
}

func (r *report) add(part, way string, value float64) {
	if r.Raw[part] == nil {
		r.Raw[part] = map[string][]float64{}
	}
	r.Raw[part][way] = append(r.Raw[part][way], round(value, 3))
}

func round(x float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(x*scale) / scale
}

// summarize returns nil for no values.
func summarize(values []float64) *quartiles {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	return &quartiles{
		Median: round(quantile(sorted, 0.5), 3), Q1: round(quantile(sorted, 0.25), 3), Q3: round(quantile(sorted, 0.75), 3),
	}
}

// quantile interpolates between the values beside it.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// perRound combines two ways of a part within each round.
func (r *report) perRound(part, a, b string, combine func(a, b float64) float64) *quartiles {
	left, right := r.Raw[part][a], r.Raw[part][b]
	values := make([]float64, min(len(left), len(right)))
	for i := range values {
		values[i] = combine(left[i], right[i])
	}
	return summarize(values)
}

func (r *report) summarize() {
	ratio := func(part, a, b string) *quartiles {
		return r.perRound(part, a, b, func(x, y float64) float64 { return x / y })
	}
	extra := func(way string) *quartiles {
		return r.perRound("connect", way, "straight", func(x, y float64) float64 { return x - y })
	}
	r.Direct, r.Again = ratio("select", "direct", "straight"), ratio("select", "again", "straight")
	r.ProxyVsHAProxy, r.ProxyVsPgBouncer = ratio("select", "proxy", "haproxy"), ratio("select", "proxy", "pgbouncer")
	r.PassVsHAProxy, r.PassVsPgBouncer = ratio("select", "pass-through", "haproxy"), ratio("select", "pass-through", "pgbouncer")
	r.CopyVsHAProxy, r.CopyVsPgBouncer = ratio("copy", "proxy", "haproxy"), ratio("copy", "proxy", "pgbouncer")
	r.CopyPassVsHAProxy, r.CopyDirect = ratio("copy", "pass-through", "haproxy"), ratio("copy", "direct", "straight")
	r.StormVsHAProxy, r.StormVsPgBouncer = ratio("storm", "proxy", "haproxy"), ratio("storm", "proxy", "pgbouncer")
	r.DirectExtraMS, r.ProxyExtraMS, r.PassExtraMS = extra("direct"), extra("proxy"), extra("pass-through")
	for _, q := range []*quartiles{r.DirectExtraMS, r.ProxyExtraMS, r.PassExtraMS} {
		if q != nil && (r.ConnectExtraMS == nil || q.Median > *r.ConnectExtraMS) {
			r.ConnectExtraMS = &q.Median
		}
	}
	r.ConnectDeadFirstMS = summarize(r.Raw["dead"]["direct"])
	r.LibpqDeadFirstMS = summarize(r.Raw["dead"]["libpq"])
}

// units of the parts.
var units = map[string]string{
	"select": "transactions/s", "copy": "MB/s", "storm": "connections/s",
	"connect": "ms per connection", "dead": "ms per connection", selectCost: "us of conmgr or the proxy",
}

// selectCost is the processor time of a transaction, beside its part.
const selectCost = "select_cost"

// print writes a table for people and one line for programs.
func (r *report) print(out io.Writer) error {
	r.summarize()
	fmt.Fprintf(out, "Medians of %d rounds; %d cores, load %s before.\n\n%-38s", r.Rounds, r.Cores, r.Load, "")
	columns := append(slices.Clone(ways), "libpq")
	for _, way := range columns {
		fmt.Fprintf(out, " %13s", way)
	}
	fmt.Fprintln(out)
	for _, part := range append([]string{selectCost}, parts...) {
		if r.Raw[part] == nil {
			continue
		}
		fmt.Fprintf(out, "%-38s", part+", "+units[part])
		for _, way := range columns {
			if q := summarize(r.Raw[part][way]); q != nil {
				fmt.Fprintf(out, " %13.2f", q.Median)
			} else {
				fmt.Fprintf(out, " %13s", "")
			}
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
	r.printReach(out)
	return json.NewEncoder(out).Encode(r)
}

// printReach compares with what is to be reached.
func (r *report) printReach(out io.Writer) {
	for _, line := range []struct {
		what  string
		q     *quartiles
		reach float64
	}{
		{"straight / straight", r.Again, 0},
		{"direct / straight", r.Direct, 0.98},
		{"proxy / HAProxy", r.ProxyVsHAProxy, 1}, {"proxy / PgBouncer", r.ProxyVsPgBouncer, 1},
		{"pass-through / HAProxy", r.PassVsHAProxy, 1}, {"pass-through / PgBouncer", r.PassVsPgBouncer, 1},
		{"COPY, proxy / HAProxy", r.CopyVsHAProxy, 1}, {"COPY, proxy / PgBouncer", r.CopyVsPgBouncer, 1},
		{"COPY, pass-through / HAProxy", r.CopyPassVsHAProxy, 1}, {"COPY, direct / straight", r.CopyDirect, 0.98},
	} {
		if line.q == nil {
			continue
		}
		short := ""
		if line.q.Median < line.reach {
			short = fmt.Sprintf("  short of %.2f", line.reach)
		}
		fmt.Fprintf(out, "%-30s %.3f (%.3f to %.3f)%s\n", line.what, line.q.Median, line.q.Q1, line.q.Q3, short)
	}
	fmt.Fprintln(out)
}
