// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const (
	// collectLimit bounds one look at a daemon.
	collectLimit = 5 * time.Second
	// collectEvery bounds how often a daemon is looked at.
	collectEvery = 100 * time.Millisecond
)

// collector looks at a daemon when Prometheus asks. It is safe for concurrent use.
type collector struct {
	families []*Family
	fill     func(context.Context, *Sink) error
	now      func() time.Time

	mu   sync.Mutex // guards the following
	last []prometheus.Metric
	at   time.Time // when that was
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range c.families {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector. A daemon that does not answer in time is an
// error of the whole scrape: no value is better than an old one.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	metrics, err := c.look()
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.families[0].desc, err)
		return
	}
	for _, m := range metrics {
		to <- m
	}
}

func (c *collector) look() ([]prometheus.Metric, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := c.now().Sub(c.at); c.last != nil && age >= 0 && age < collectEvery {
		return c.last, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectLimit)
	defer cancel()
	var sink Sink
	err := c.fill(ctx, &sink)
	if err == nil {
		err = sink.err()
	}
	if err != nil {
		c.last = nil
		return nil, err
	}
	c.last, c.at = sink.metrics, c.now()
	return c.last, nil
}

// registry has the daemon's metrics, its build, and what every Go program tells of
// itself: memory, processor time, open files.
func registry(program, version string, c prometheus.Collector) (*prometheus.Registry, error) {
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: program + "_build_info", Help: "The version of the daemon, always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	r := prometheus.NewPedanticRegistry()
	for _, each := range []prometheus.Collector{
		c, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(each); err != nil {
			return nil, err
		}
	}
	return r, nil
}
