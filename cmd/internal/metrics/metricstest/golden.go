// SPDX-License-Identifier: Apache-2.0

// Package metricstest checks the metrics of a program as its tests fill them.
package metricstest

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics"
)

var update = flag.Bool("update-metrics", false, "rewrite testdata/metrics.txt")

// MustText returns the metrics of a program as Prometheus gets them, without those
// that every Go program has.
func MustText(t *testing.T, program string, families []*metrics.Family, fill func(*metrics.Sink)) string {
	t.Helper()
	h, err := metrics.Handler(metrics.Options{
		Program: program, Version: "1.2.3", Families: families,
		Fill: func(_ context.Context, s *metrics.Sink) error { fill(s); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var own []string
	for line := range strings.Lines(w.Body.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, program+"_") && !strings.HasPrefix(name, program+"_build_info") {
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}

// Check wants the metrics to be those of testdata/metrics.txt, every declared one to be
// there, and Prometheus' linter to be silent.
func Check(t *testing.T, program string, families []*metrics.Family, fill func(*metrics.Sink)) {
	t.Helper()
	text := MustText(t, program, families, fill)
	path := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s; run go test with -update-metrics (-want +got):\n%s", path, diff)
	}
	for _, f := range families {
		if !strings.Contains(text, "\n# TYPE "+f.Name()+" ") || f.Help() == "" || !slices.Contains([]byte(".?"), f.Help()[len(f.Help())-1]) {
			t.Errorf("%s: not there, or without a sentence that says what it is", f.Name())
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
