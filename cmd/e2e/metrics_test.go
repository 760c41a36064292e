// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Ports of the metrics of conmgr and of the agents.
const (
	portConmgrMetrics   = 27547
	portWatchdogMetrics = 27548
)

// scraped are the metrics of one moment.
type scraped struct {
	*world
	families map[string]*dto.MetricFamily
}

// scrape gets the metrics that a daemon serves on its host's localhost.
func (w *world) scrape(h *agenttest.Host, port int) scraped {
	w.Helper()
	client := http.Client{Timeout: generous, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) },
	}}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	w.must(err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	w.must(err)
	if r.StatusCode != http.StatusOK {
		w.Fatalf("metrics of %s: %s, %s", h.Name, r.Status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	w.must(err)
	return scraped{w, families}
}

// sum adds up the metrics of a family that have these values of labels.
func (s scraped) sum(name string, labels ...string) (sum float64) {
	s.Helper()
	family := s.families[name]
	if family == nil {
		s.Fatalf("no metric %s", name)
	}
	for _, m := range family.GetMetric() {
		if !hasLabels(m, labels) {
			continue
		}
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}

func hasLabels(m *dto.Metric, labels []string) bool {
	found := 0
	for _, l := range m.GetLabel() {
		for i := 0; i < len(labels); i += 2 {
			if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
				found++
			}
		}
	}
	return 2*found == len(labels)
}

func (s scraped) expect(want float64, name string, labels ...string) {
	s.Helper()
	if got := s.sum(name, labels...); got != want {
		s.Errorf("%s%q is %v, want %v", name, labels, got, want)
	}
}

// The metrics of both daemons say what has happened, and what SHOW STATS says.
func TestMetrics(t *testing.T) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := fast()
	calm(&s)
	s.conmgr["metrics_listen"] = fmt.Sprintf("'%d'", portConmgrMetrics)
	s.agents["watchdog.metrics_listen"] = strconv.Itoa(portWatchdogMetrics)
	w := newWorld(t, s)
	apps := w.crowd(w.through(portPrimary))

	// A driver that was refused TLS may connect once more: its first connection ends.
	w.expect("only the applications are connected", func() bool {
		return w.scrape(w.client, portConmgrMetrics).sum("conmgr_applications", "kind", "passthrough") <= float64(apps.size())
	})
	conmgr := w.scrape(w.client, portConmgrMetrics)
	one := []string{"number", "0", "address", w.primary.Addr().String()}
	conmgr.expect(1, "conmgr_instance_monitoring", append(one, "state", "monitored")...)
	conmgr.expect(1, "conmgr_instance_attribute", append(one, "attribute", "primary")...)
	conmgr.expect(1, "conmgr_instance_attribute", "number", "1", "attribute", "standby")
	conmgr.expect(float64(apps.size()), "conmgr_instance_applications", one...)
	conmgr.expect(float64(apps.size()), "conmgr_applications", "kind", "passthrough")
	if got := conmgr.sum("conmgr_connects_total", "kind", "passthrough", "target", "primary", "result", "connected"); got < float64(apps.size()) {
		t.Errorf("%v connects, want %d or more", got, apps.size())
	}
	conmgr.expect(0, "conmgr_connects_total", "result", "failed")
	conmgr.expect(0, "conmgr_instance_faults_total")
	conmgr.expect(1, "conmgr_instance_kills_enabled", one...)
	w.expect("a round trip", func() bool {
		return w.scrape(w.client, portConmgrMetrics).sum("conmgr_instance_heartbeat_rtt_seconds", one...) > 0
	})
	agent := w.scrape(w.db1, portWatchdogMetrics)
	agent.expect(1, "pgwatchdog_sessions", "state", "up")
	agent.expect(1, "pgwatchdog_instance_status", "status", "up")
	agent.expect(1, "pgwatchdog_instance_attribute", "attribute", "primary")
	agent.expect(2, "pgwatchdog_database_connected")
	agent.expect(0, "pgwatchdog_verdicts_total")
	agent.expect(0, "pgwatchdog_kills_paused")
	agent.expect(1, "pgwatchdog_socket_destroy_available")
	if w.scrape(w.db2, portWatchdogMetrics).sum("pgwatchdog_instance_attribute", "attribute", "standby") != 1 {
		t.Error("db2 is no standby")
	}

	agenttest.MustFault(w, w.client.Cut)
	apps.expectErrors("cut off")
	w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
	w.expect("the kill is counted", func() bool {
		return w.scrape(w.db1, portWatchdogMetrics).sum("pgwatchdog_warrants_total", "outcome", "done") == 1
	})
	agent = w.scrape(w.db1, portWatchdogMetrics)
	agent.expect(1, "pgwatchdog_verdicts_total", "reason", "timeout")
	agent.expect(1, "pgwatchdog_verdicts_total")
	agent.expect(float64(apps.size()), "pgwatchdog_backends_terminated_total")
	agent.expect(float64(apps.size()), "pgwatchdog_sockets_destroyed_total")
	agent.expect(0, "pgwatchdog_survivors_total")
	agent.expect(1, "pgwatchdog_kill_duration_seconds")
	agent.expect(0, "pgwatchdog_sessions", "state", "up")
	if took := agent.families["pgwatchdog_kill_duration_seconds"].GetMetric()[0].GetHistogram().GetSampleSum(); took <= 0 || took > 30 {
		t.Errorf("the kill took %v s", took)
	}

	conmgr = w.scrape(w.client, portConmgrMetrics)
	conmgr.expect(1, "conmgr_instance_monitoring", append(one, "state", "faulted")...)
	conmgr.expect(1, "conmgr_instance_faults_total", append(one, "reason", "timeout")...)
	conmgr.expect(1, "conmgr_instance_verdicts_total", append(one, "reason", "timeout")...)
	conmgr.expect(float64(apps.size()), "conmgr_applications_told_total")
	conmgr.expect(0, "conmgr_instance_applications", one...)
	for _, row := range w.show(w.cm, "SHOW STATS") {
		metric := map[string][]string{
			"faults": {"conmgr_instance_faults_total"}, "applications_told": {"conmgr_applications_told_total"},
			"passthrough_connected": {"conmgr_connects_total", "kind", "passthrough", "result", "connected"},
			"bytes_to_instances":    {"conmgr_passed_bytes_total", "direction", "to_instances"},
			"bytes_to_clients":      {"conmgr_passed_bytes_total", "direction", "to_clients"},
		}[row["name"]]
		if metric == nil {
			continue
		}
		want, err := strconv.ParseFloat(row["value"], 64)
		w.must(err)
		if want == 0 {
			t.Errorf("SHOW STATS: %s is 0", row["name"])
		}
		conmgr.expect(want, metric[0], metric[1:]...)
	}
}
