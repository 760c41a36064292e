// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgconmgr/pgconmgr/agent/tally"
)

// Family is one metric with all values of its labels. The zero value is not usable;
// see [Gauge], [Counter] and [Histogram].
type Family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType // of a histogram 0
	name string
	help string
	size int // labels
}

func family(kind prometheus.ValueType, name, help string, labels []string) *Family {
	return &Family{desc: prometheus.NewDesc(name, help, labels, nil), kind: kind, name: name, help: help, size: len(labels)}
}

// Name returns the name.
func (f *Family) Name() string { return f.name }

// Help returns the sentence that says what it is.
func (f *Family) Help() string { return f.help }

// Gauge declares what goes up and down.
func Gauge(name, help string, labels ...string) *Family {
	return family(prometheus.GaugeValue, name, help, labels)
}

// Counter declares what only grows, from the start of the daemon on.
func Counter(name, help string, labels ...string) *Family {
	return family(prometheus.CounterValue, name, help, labels)
}

// Histogram declares times, in seconds, by how long they were.
func Histogram(name, help string, labels ...string) *Family {
	return family(0, name, help, labels)
}

// Sink takes the values of one look. It is not for concurrent use.
type Sink struct {
	metrics []prometheus.Metric
	errs    []error
}

// Put sets a gauge or a counter for these values of its labels.
func (s *Sink) Put(f *Family, value float64, labels ...string) {
	m, err := prometheus.NewConstMetric(f.desc, f.kind, value, printable(labels)...)
	s.take(f, m, err)
}

// PutTimes sets a histogram.
func (s *Sink) PutTimes(f *Family, c tally.Counts, labels ...string) {
	buckets := make(map[float64]uint64, len(c.Bounds))
	for i, bound := range c.Bounds {
		buckets[bound.Seconds()] = c.Within[i]
	}
	m, err := prometheus.NewConstHistogram(f.desc, c.Count, c.Sum.Seconds(), buckets, printable(labels)...)
	s.take(f, m, err)
}

// PutState sets one gauge for each of the words, all 0 but the one that is true now,
// behind the labels that come first. What is none of the words is told as it is.
func (s *Sink) PutState(f *Family, now string, words []string, labels ...string) {
	known := false
	for _, word := range words {
		s.Put(f, Truth(word == now), append(labels[:len(labels):len(labels)], word)...)
		known = known || word == now
	}
	if !known {
		s.Put(f, 1, append(labels[:len(labels):len(labels)], now)...)
	}
}

func (s *Sink) take(f *Family, m prometheus.Metric, err error) {
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("metric %s: %w", f.name, err))
		return
	}
	s.metrics = append(s.metrics, m)
}

func (s *Sink) err() error { return errors.Join(s.errs...) }

// printable makes values of labels that Prometheus takes.
func printable(labels []string) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = strings.ToValidUTF8(l, "?")
	}
	return out
}

// Truth is 1 for true and 0 for false.
func Truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Word is a text as labels have it: in small letters, without blanks.
func Word(s string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(s))
}

// Unix is a moment in seconds since the epoch, 0 for the zero time.
func Unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
