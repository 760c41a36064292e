// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// The metrics, in the order of [collect].
var (
	metricStart = metrics.Gauge("pgwatchdog_start_time_seconds", "When the agent started, in seconds since the epoch.")

	metricStatus    = metrics.Gauge("pgwatchdog_instance_status", "1 for the status of the instance, 0 for the others. While it is unknown, conmgrs call the instance unmonitored.", "status")
	metricAttribute = metrics.Gauge("pgwatchdog_instance_attribute", "1 for what the instance is, 0 for the others.", "attribute")
	metricTimeline  = metrics.Gauge("pgwatchdog_instance_timeline", "Timeline of the instance, 0 while unknown.")

	metricSessions     = metrics.Gauge("pgwatchdog_sessions", "Heartbeat sessions by state.", "state")
	metricSessionLimit = metrics.Gauge("pgwatchdog_sessions_limit", "watchdog.max_heartbeat_connections.")
	metricClients      = metrics.Gauge("pgwatchdog_clients", "Clients by what the agent does about them: armed, or without a session waiting to come back, spared, suspended by a pause, warranted (being terminated).", "relation")
	metricRTTMedian    = metrics.Gauge("pgwatchdog_heartbeat_rtt_median_seconds", "Median round trip of the armed sessions, 0 without one.")
	metricRTTMax       = metrics.Gauge("pgwatchdog_heartbeat_rtt_max_seconds", "Longest round trip of the armed sessions, 0 without one.")
	metricReceived     = metrics.Counter("pgwatchdog_heartbeats_received_total", "Frames of all sessions that came.")
	metricLost         = metrics.Counter("pgwatchdog_heartbeats_lost_total", "Frames of conmgrs that never came.")
	metricSent         = metrics.Counter("pgwatchdog_heartbeats_sent_total", "Frames sent in all sessions.")
	metricPeerLost     = metrics.Counter("pgwatchdog_heartbeats_sent_lost_total", "Frames to conmgrs that they say they missed.")
	metricRejected     = metrics.Counter("pgwatchdog_frames_rejected_total", "Frames that were not taken, by reason: no frame (malformed), of no session (foreign), a HELLO refused (refused), not the conmgr's or not new (forged), out of place (invalid).", "reason")

	metricVerdicts = metrics.Counter("pgwatchdog_verdicts_total", "Armed sessions that ended, by the reason, the agent's own stop excepted.", "reason")
	metricWarrants = metrics.Counter("pgwatchdog_warrants_total", "What became of verdicts to terminate, by outcome; paused: not carried out while kills are paused.", "outcome")
	metricSockets  = metrics.Counter("pgwatchdog_sockets_destroyed_total", "Sockets of dead clients that were destroyed.")
	metricBackends = metrics.Counter("pgwatchdog_backends_terminated_total", "Database sessions of dead clients that ended.")
	metricSurvivor = metrics.Counter("pgwatchdog_survivors_total", "Database sessions of dead clients that did not end in time.")
	metricKills    = metrics.Histogram("pgwatchdog_kill_duration_seconds", "From the warrant until everybody had ended, or the survivors were named.")

	metricPaused    = metrics.Gauge("pgwatchdog_kills_paused", "1 while agentctl pause suspends kills.")
	metricPauseLeft = metrics.Gauge("pgwatchdog_kills_pause_remaining_seconds", "How long the pause still lasts, 0 without one.")
	metricDryRun    = metrics.Gauge("pgwatchdog_dry_run", "1 while watchdog.dry_run is on.")
	metricStalls    = metrics.Counter("pgwatchdog_stalls_total", "Times that the agent itself stood still; nobody was judged for that silence.")
	metricFuses     = metrics.Counter("pgwatchdog_fuse_holds_total", "Times that the fuse held verdicts, because too many would have ended at once.")
	metricHeld      = metrics.Gauge("pgwatchdog_fuse_held_sessions", "Sessions whose verdict the fuse holds.")

	metricLinkSource  = metrics.Gauge("pgwatchdog_link_source", "1 for who tells of lost links, 0 for the others; off: watchdog.link_hints.", "source")
	metricLinkEvents  = metrics.Counter("pgwatchdog_link_events_total", "Changes of links of this host, by who told and what happened.", "source", "event")
	metricLinkLatency = metrics.Histogram("pgwatchdog_link_event_latency_seconds", "How late a change of a link was known, as far as the source tells.", "source")

	metricDatabase = metrics.Gauge("pgwatchdog_database_connected", "1 while the connection to the instance is there: the one that looks, the one that terminates.", "connection")
	metricRights   = metrics.Gauge("pgwatchdog_database_rights_missing", "Rights that the agent's role lacks to end sessions.")
	metricDestroy  = metrics.Gauge("pgwatchdog_socket_destroy_available", "1 when the agent has proven that it can destroy sockets.")
)

var families = []*metrics.Family{
	metricStart, metricStatus, metricAttribute, metricTimeline,
	metricSessions, metricSessionLimit, metricClients, metricRTTMedian, metricRTTMax,
	metricReceived, metricLost, metricSent, metricPeerLost, metricRejected,
	metricVerdicts, metricWarrants, metricSockets, metricBackends, metricSurvivor, metricKills,
	metricPaused, metricPauseLeft, metricDryRun, metricStalls, metricFuses, metricHeld,
	metricLinkSource, metricLinkEvents, metricLinkLatency, metricDatabase, metricRights, metricDestroy,
}

// serveMetrics is watchdog.Options.Metrics.
func serveMetrics(log *slog.Logger) watchdog.MetricsServer {
	return func(ctx context.Context, at []conf.Endpoint, look func(context.Context) (*watchdog.Metrics, error)) {
		metrics.Serve(ctx, metrics.Options{
			Program: program, Version: cli.Version, Listen: at, Families: families, Log: log,
			Fill: func(ctx context.Context, s *metrics.Sink) error {
				f, err := look(ctx)
				if err == nil {
					collect(s, f)
				}
				return err
			},
		})
	}
}

func collect(s *metrics.Sink, f *watchdog.Metrics) {
	s.Put(metricStart, metrics.Unix(f.Started))
	s.PutState(metricStatus, f.Instance.Status.String(), metrics.Words(wire.StatusUnresponsive))
	s.PutState(metricAttribute, f.Instance.Attribute.String(), metrics.Words(wire.AttributeStandby))
	s.Put(metricTimeline, float64(f.Instance.Timeline))
	collectSessions(s, f)
	collectKills(s, f)
	s.Put(metricPaused, metrics.Truth(f.Paused))
	s.Put(metricPauseLeft, f.PauseLeft.Seconds())
	s.Put(metricDryRun, metrics.Truth(f.DryRun))
	s.Put(metricStalls, float64(f.Loop.Stalls))
	s.Put(metricFuses, float64(f.Loop.Fuses))
	s.Put(metricHeld, float64(f.Sessions.Held))
	source := f.LinkSource
	if !f.LinkHints {
		source = "off"
	}
	metrics.Links{Source: metricLinkSource, Events: metricLinkEvents, Latency: metricLinkLatency}.Put(s, source, &f.Links)
	s.Put(metricDatabase, metrics.Truth(f.Monitor), "monitor")
	s.Put(metricDatabase, metrics.Truth(f.Terminator), "terminator")
	s.Put(metricRights, float64(f.RightsMissing))
	s.Put(metricDestroy, metrics.Truth(f.CanDestroySockets))
}

func collectSessions(s *metrics.Sink, f *watchdog.Metrics) {
	for state := wire.StateInit; state <= wire.StateSuspect; state++ {
		s.Put(metricSessions, float64(f.Sessions.ByState[state]), state.String())
	}
	s.Put(metricSessionLimit, float64(f.SessionsLimit))
	c := f.Clients
	for relation, n := range map[string]int{
		"armed": c.Armed, "waiting": c.Waiting, "spared": c.Spared, "suspended": c.Suspended, "warranted": c.Warranted,
	} {
		s.Put(metricClients, float64(n), relation)
	}
	var median, longest time.Duration
	if n := len(f.RTT); n > 0 {
		median, longest = f.RTT[n/2], f.RTT[n-1]
	}
	s.Put(metricRTTMedian, median.Seconds())
	s.Put(metricRTTMax, longest.Seconds())
	frames, listen := f.Sessions.Frames, f.Sessions.Listen
	s.Put(metricReceived, float64(frames.Received))
	s.Put(metricLost, float64(frames.Lost))
	s.Put(metricSent, float64(frames.Sent))
	s.Put(metricPeerLost, float64(frames.PeerLost))
	for reason, n := range map[string]uint64{
		"malformed": listen.Malformed, "foreign": listen.Foreign, "refused": listen.Refused, "forged": listen.Forged, "invalid": frames.Invalid,
	} {
		s.Put(metricRejected, float64(n), reason)
	}
}

func collectKills(s *metrics.Sink, f *watchdog.Metrics) {
	for reason, n := range f.Verdicts {
		s.Put(metricVerdicts, float64(n), metrics.Word(reason.String()))
	}
	for outcome, n := range f.Warrants {
		s.Put(metricWarrants, float64(n), metrics.Word(string(outcome)))
	}
	s.Put(metricSockets, float64(f.SocketsDestroyed))
	s.Put(metricBackends, float64(f.BackendsTerminated))
	s.Put(metricSurvivor, float64(f.Survivors))
	s.PutTimes(metricKills, f.Kills)
}
