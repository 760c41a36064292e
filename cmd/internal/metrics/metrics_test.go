// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/tally"
)

// The metrics of a daemon that was made up.
var (
	testState  = Gauge("test_state", "1 for the state, 0 for the others.", "who", "state")
	testCount  = Counter("test_things_total", "Things.")
	testKills  = Histogram("test_kill_duration_seconds", "Kills.", "kind")
	testLinks  = Links{Gauge("test_link_source", "Source.", "source"), Counter("test_link_events_total", "Events.", "source", "event"), Histogram("test_link_event_latency_seconds", "Latency.", "source")}
	testMetric = []*Family{testState, testCount, testKills, testLinks.Source, testLinks.Events, testLinks.Latency}
)

func fill(_ context.Context, s *Sink) error {
	s.PutState(testState, "up", []string{"up", "down"}, "a\xff b")
	s.PutState(testState, "strange", []string{"up", "down"}, "c")
	s.Put(testCount, 42)
	h := tally.New(time.Millisecond, time.Second)
	h.Observe(time.Millisecond)
	h.Observe(1500 * time.Millisecond)
	s.PutTimes(testKills, h.Counts(), "fast")
	testLinks.Put(s, "counter", &linkhint.Figures{})
	return nil
}

// mustScrape returns the metrics of a handler, parsed as Prometheus does.
func mustScrape(t *testing.T, o Options) map[string]*dto.MetricFamily {
	t.Helper()
	h, err := Handler(o)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	return families
}

// value finds the one metric of a family with these values of labels.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) *dto.Metric {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		fits := len(m.GetLabel())*2 == len(labels)
		for i := 0; fits && i < len(labels); i += 2 {
			found := false
			for _, l := range m.GetLabel() {
				found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			}
			fits = found
		}
		if fits {
			return m
		}
	}
	t.Fatalf("no %s%q", name, labels)
	return nil
}

func TestExposition(t *testing.T) {
	t.Parallel()
	f := mustScrape(t, Options{Program: "test", Version: "1.2.3", Families: testMetric, Fill: fill})
	for _, tt := range []struct {
		want float64
		name string
		at   []string
	}{
		{1, "test_state", []string{"who", "a? b", "state", "up"}},
		{0, "test_state", []string{"who", "a? b", "state", "down"}},
		{0, "test_state", []string{"who", "c", "state", "up"}},
		{1, "test_state", []string{"who", "c", "state", "strange"}},
		{1, "test_link_source", []string{"source", "counter"}},
		{0, "test_link_source", []string{"source", "off"}},
	} {
		if got := value(t, f, tt.name, tt.at...).GetGauge().GetValue(); got != tt.want {
			t.Errorf("%s%q is %v, want %v", tt.name, tt.at, got, tt.want)
		}
	}
	if got := value(t, f, "test_things_total").GetCounter().GetValue(); got != 42 {
		t.Errorf("counter %v", got)
	}
	if got := value(t, f, "test_link_events_total", "source", "rtnetlink", "event", "carrier_lost").GetCounter(); got == nil {
		t.Error("no counter of lost carriers")
	}
	if m := f["test_build_info"].GetMetric(); len(m) != 1 || !strings.Contains(m[0].String(), "1.2.3") {
		t.Errorf("build info %v", m)
	}
	h := value(t, f, "test_kill_duration_seconds", "kind", "fast").GetHistogram()
	buckets := map[float64]uint64{}
	for _, b := range h.GetBucket() {
		buckets[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	if h.GetSampleCount() != 2 || math.Abs(h.GetSampleSum()-1.501) > 1e-9 || buckets[0.001] != 1 || buckets[1] != 1 || buckets[math.Inf(1)] != 2 {
		t.Errorf("histogram %v", h)
	}
	if value(t, f, "process_open_fds").GetGauge().GetValue() < 3 || f["go_goroutines"] == nil {
		t.Error("the process tells nothing of itself")
	}
}

// Only reads are answered, and only where the metrics are.
func TestPaths(t *testing.T) {
	t.Parallel()
	h, err := Handler(Options{Program: "test", Families: testMetric, Fill: fill})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/metrics", 200}, {http.MethodHead, "/metrics", 200}, {http.MethodGet, "/", 200},
		{http.MethodGet, "/metrics/", 404}, {http.MethodGet, "/etc/passwd", 404}, {http.MethodGet, "/debug/pprof/", 404},
		{http.MethodPost, "/metrics", 405}, {http.MethodDelete, "/", 405},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// A daemon that does not answer makes the scrape fail: nothing old and nothing half.
func TestTroubleIsAnError(t *testing.T) {
	t.Parallel()
	trouble := errors.New("the loop is stuck")
	for name, f := range map[string]func(context.Context, *Sink) error{
		"error":            func(context.Context, *Sink) error { return trouble },
		"too few labels":   func(_ context.Context, s *Sink) error { s.Put(testState, 1, "a"); return nil },
		"the same twice":   func(_ context.Context, s *Sink) error { s.Put(testCount, 1); s.Put(testCount, 2); return nil },
		"error after half": func(ctx context.Context, s *Sink) error { _ = fill(ctx, s); return trouble },
	} {
		h, err := Handler(Options{Program: "test", Families: testMetric, Fill: f})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "test_things_total 4") {
			t.Errorf("%s: %d, %s", name, w.Code, w.Body)
		}
	}
}

// However often somebody asks, the daemon is looked at ten times a second at most;
// and a look after that time is a new one.
func TestLooksArePaced(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	now := time.Unix(1000, 0)
	c := &collector{families: testMetric, now: func() time.Time { return now }, fill: func(ctx context.Context, s *Sink) error {
		looks.Add(1)
		return fill(ctx, s)
	}}
	for _, step := range []struct {
		pass time.Duration
		want int64
	}{{0, 1}, {0, 1}, {collectEvery - 1, 1}, {1, 2}, {time.Hour, 3}, {-2 * time.Hour, 4}} {
		now = now.Add(step.pass)
		if _, err := c.look(); err != nil || looks.Load() != step.want {
			t.Errorf("after %s: %d looks, %v, want %d", step.pass, looks.Load(), err, step.want)
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
