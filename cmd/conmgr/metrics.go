// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// The metrics, in the order of [collect]. The labels number and address are those of
// a configured instance.
var (
	metricStart = metrics.Gauge("conmgr_start_time_seconds", "When conmgr started, in seconds since the epoch.")
	metricSplit = metrics.Gauge("conmgr_split", "1 while two primaries cannot be told apart: neither is used.")

	metricMonitoring = metrics.Gauge("conmgr_instance_monitoring", "1 for what conmgr knows of the instance, 0 for the others; new connections go to monitored and unmonitored ones only.", "number", "address", "state")
	metricHeartbeat  = metrics.Gauge("conmgr_instance_heartbeat", "1 for the state of the heartbeat session, 0 for the others.", "number", "address", "state")
	metricStatus     = metrics.Gauge("conmgr_instance_status", "1 for the status of the instance as it was heard last, 0 for the others.", "number", "address", "status")
	metricAttribute  = metrics.Gauge("conmgr_instance_attribute", "1 for what the instance is, as it was heard last, 0 for the others.", "number", "address", "attribute")
	metricTimeline   = metrics.Gauge("conmgr_instance_timeline", "Timeline of the instance, 0 while unknown.", "number", "address")
	metricLoser      = metrics.Gauge("conmgr_instance_stale_primary", "1 while the instance is a primary that lost to another one.", "number", "address")
	metricKills      = metrics.Gauge("conmgr_instance_kills_enabled", "1 while the instance's agent terminates the sessions of lost clients, 0 while it is paused, in a dry run or unknown.", "number", "address")
	metricRTT        = metrics.Gauge("conmgr_instance_heartbeat_rtt_seconds", "Round trip of the heartbeat, 0 while unknown.", "number", "address")
	metricSilence    = metrics.Gauge("conmgr_instance_heartbeat_silence_seconds", "Time since the last valid heartbeat, -1 for never.", "number", "address")
	metricReceived   = metrics.Counter("conmgr_instance_heartbeats_received_total", "Frames of the agent that came.", "number", "address")
	metricLost       = metrics.Counter("conmgr_instance_heartbeats_lost_total", "Frames of the agent that never came.", "number", "address")
	metricVerdicts   = metrics.Counter("conmgr_instance_verdicts_total", "Armed heartbeat sessions that ended, by the reason; not each of them is a fault.", "number", "address", "reason")
	metricFaults     = metrics.Counter("conmgr_instance_faults_total", "Times that applications of the instance were told that it is lost to them, by the reason.", "number", "address", "reason")
	metricBound      = metrics.Gauge("conmgr_instance_applications", "Applications that are bound to the instance.", "number", "address")

	metricApplications = metrics.Gauge("conmgr_applications", "Applications by the way they take, bound to an instance or not.", "kind")
	metricTold         = metrics.Counter("conmgr_applications_told_total", "Applications that were told of a fault.")
	metricConnects     = metrics.Counter("conmgr_connects_total", "Ways to an instance that applications asked for, by kind, target and result; of the console: answers to TARGET.", "kind", "target", "result")
	metricSlow         = metrics.Counter("conmgr_slow_connects_total", "Connections to an instance that took a second or more.", "kind")
	metricBytes        = metrics.Counter("conmgr_passed_bytes_total", "Bytes that pass-through and proxy mode have passed on, by direction.", "direction")

	metricAccepted    = metrics.Counter("conmgr_connections_accepted_total", "Connections of applications that were accepted.")
	metricRefused     = metrics.Counter("conmgr_connections_refused_total", "Connections that were closed at once: max_connections or descriptors were used up (limit), or no loopback peer and not in proxy_allow (stranger).", "reason")
	metricOpen        = metrics.Gauge("conmgr_connections", "Connections of applications, under max_connections.")
	metricFailed      = metrics.Counter("conmgr_startup_failures_total", "Connections that ended before their startup was complete.")
	metricCancels     = metrics.Counter("conmgr_cancel_requests_total", "Cancel requests on the application port.")
	metricPassed      = metrics.Counter("conmgr_cancel_requests_passed_total", "Cancel requests that were passed on to an instance.")
	metricDescriptors = metrics.Gauge("conmgr_descriptors_used", "File descriptors that applications use.")
	metricBudget      = metrics.Gauge("conmgr_descriptors_limit", "File descriptors that applications may use.")

	metricStalls      = metrics.Counter("conmgr_stalls_total", "Times that conmgr itself stood still; nobody was judged for that silence.")
	metricLinkSource  = metrics.Gauge("conmgr_link_source", "1 for who tells of lost links, 0 for the others; off: link_hints.", "source")
	metricLinkEvents  = metrics.Counter("conmgr_link_events_total", "Changes of links of this host, by who told and what happened.", "source", "event")
	metricLinkLatency = metrics.Histogram("conmgr_link_event_latency_seconds", "How late a change of a link was known, as far as the source tells.", "source")
)

var families = []*metrics.Family{
	metricStart, metricSplit,
	metricMonitoring, metricHeartbeat, metricStatus, metricAttribute, metricTimeline, metricLoser, metricKills,
	metricRTT, metricSilence, metricReceived, metricLost, metricVerdicts, metricFaults, metricBound,
	metricApplications, metricTold, metricConnects, metricSlow, metricBytes,
	metricAccepted, metricRefused, metricOpen, metricFailed, metricCancels, metricPassed, metricDescriptors, metricBudget,
	metricStalls, metricLinkSource, metricLinkEvents, metricLinkLatency,
}

// serveMetrics is conmgr.RunOptions.Metrics.
func serveMetrics(log *slog.Logger) conmgr.MetricsServer {
	return func(ctx context.Context, at []conf.Endpoint, look func(context.Context) (*conmgr.Metrics, error)) {
		metrics.Serve(ctx, metrics.Options{
			Program: program, Version: cli.Version, Listen: at, Families: families, Log: log,
			Fill: func(ctx context.Context, s *metrics.Sink) error {
				m, err := look(ctx)
				if err == nil {
					collect(s, m)
				}
				return err
			},
		})
	}
}

func collect(s *metrics.Sink, m *conmgr.Metrics) {
	s.Put(metricStart, metrics.Unix(m.Started))
	s.Put(metricSplit, metrics.Truth(m.View.Split != ""))
	for i := range m.View.Instances {
		collectInstance(s, m, i)
	}
	collectApplications(s, m)
	s.Put(metricStalls, float64(m.Loop.Stalls))
	metrics.Links{Source: metricLinkSource, Events: metricLinkEvents, Latency: metricLinkLatency}.Put(s, m.LinkSource, &m.Links)
}

func collectInstance(s *metrics.Sink, m *conmgr.Metrics, i int) {
	n := &m.View.Instances[i]
	number, address := strconv.Itoa(n.Number), n.HostPort()
	s.PutState(metricMonitoring, n.Monitoring.String(), metrics.Words(conmgr.Foreign), number, address)
	s.PutState(metricHeartbeat, n.Heartbeat.String(), metrics.Words(wire.StateSuspect), number, address)
	s.PutState(metricStatus, n.Instance.Status.String(), metrics.Words(wire.StatusUnresponsive), number, address)
	s.PutState(metricAttribute, n.Instance.Attribute.String(), metrics.Words(wire.AttributeStandby), number, address)
	s.Put(metricTimeline, float64(n.Instance.Timeline), number, address)
	s.Put(metricLoser, metrics.Truth(n.Loser), number, address)
	s.Put(metricKills, metrics.Truth(n.Kills() == "enabled"), number, address)
	s.Put(metricRTT, n.RTT.Seconds(), number, address)
	silence := m.Silence[i]
	if silence < 0 {
		silence = -time.Second
	}
	s.Put(metricSilence, silence.Seconds(), number, address)
	s.Put(metricReceived, float64(n.Received), number, address)
	s.Put(metricLost, float64(n.Lost), number, address)
	for reason, count := range m.Verdicts[i] {
		s.Put(metricVerdicts, float64(count), number, address, metrics.Word(reason.String()))
	}
	for reason, count := range m.Faults[i] {
		s.Put(metricFaults, float64(count), number, address, metrics.Word(reason))
	}
	s.Put(metricBound, float64(m.Bound[i]), number, address)
}

func collectApplications(s *metrics.Sink, m *conmgr.Metrics) {
	for kind, n := range m.Applications {
		s.Put(metricApplications, float64(n), string(kind))
	}
	s.Put(metricTold, float64(m.Told))
	for _, w := range m.Ways {
		for t := range w.Connected {
			target := conmgr.Target(t).String()
			s.Put(metricConnects, float64(w.Connected[t]), string(w.Kind), target, "connected")
			s.Put(metricConnects, float64(w.Failed[t]), string(w.Kind), target, "failed")
		}
		if w.Kind != conmgr.KindConsole { // which connects nobody itself
			s.Put(metricSlow, float64(w.Slow), string(w.Kind))
		}
	}
	s.Put(metricBytes, float64(m.BytesToInstances), "to_instances")
	s.Put(metricBytes, float64(m.BytesToClients), "to_clients")
	s.Put(metricAccepted, float64(m.Accepted))
	s.Put(metricRefused, float64(m.RefusedLimit), "limit")
	s.Put(metricRefused, float64(m.RefusedStranger), "stranger")
	s.Put(metricOpen, float64(m.Open))
	s.Put(metricFailed, float64(m.StartupFailed))
	s.Put(metricCancels, float64(m.Cancels))
	s.Put(metricPassed, float64(m.CancelsPassed))
	s.Put(metricDescriptors, float64(m.Descriptors))
	s.Put(metricBudget, float64(m.DescriptorsLimit))
}
