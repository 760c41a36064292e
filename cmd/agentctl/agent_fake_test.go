// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// answers is a pgwatchdog that says always the same.
func answers(s control.Status, sessions ...control.Session) func(context.Context, string, control.Question) (*control.Reply, error) {
	return func(context.Context, string, control.Question) (*control.Reply, error) {
		return &control.Reply{Status: s, Sessions: sessions}, nil
	}
}

// healthyAgent has nothing to complain of.
func healthyAgent() control.Status {
	return control.Status{
		Version: "1.2.3", PID: 4711, Started: noon.Add(-26 * time.Hour), StateDir: "/var/lib/pgconmgr/15-main", Kills: "enabled",
		Instance:    control.Instance{Status: "up", Attribute: "primary", Timeline: 1, Port: 5432},
		Sessions:    control.Sessions{Up: 3, Limit: 100, Keyed: true},
		Clients:     control.Clients{Armed: 3},
		Links:       control.Links{Enabled: true, Source: "fentry"},
		Database:    control.Database{Monitor: true, Terminator: true, Role: "pgwatchdog"},
		Sockets:     control.Sockets{Proven: true},
		Descriptors: control.Descriptors{Open: 24, Limit: 1024, Need: 164},
	}
}

// testPause is a pause of half an hour, of which twenty minutes are left.
func testPause() *control.Pause {
	return &control.Pause{
		Since: noon.Add(-10 * time.Minute), Until: noon.Add(20 * time.Minute), LeftMS: (20 * time.Minute).Milliseconds(),
		By: "root for alice", Reason: "new switch\x1b[31m",
	}
}

// sickAgent lacks what it can.
func sickAgent() control.Status {
	s := healthyAgent()
	s.Kills, s.Pause, s.Clients.Suspended = "paused", testPause(), 1
	s.Instance = control.Instance{Status: "unknown", Attribute: "unknown"}
	s.Database = control.Database{Role: "Wd", Missing: []string{`cannot end sessions: GRANT pg_signal_backend TO "Wd"`}}
	s.Sockets.Error = "operation not permitted"
	s.Links = control.Links{Enabled: true, Source: "rtnetlink", Missing: []control.MissingSource{
		{Source: "fentry", Error: "missing CAP_BPF", Hint: "give the process CAP_BPF"}, {Source: "counter", Error: "no such file"},
	}}
	s.Descriptors.Limit = 100
	s.Fuse = control.Fuse{Blown: 1, Held: 4, Last: noon}
	s.Stalls = 2
	return s
}

// testSessions are one of everything.
func testSessions() []control.Session {
	addr := netip.MustParseAddr
	return []control.Session{
		{
			Addr: addr("10.99.0.7"), State: "down", Reason: "timeout", TimeoutMS: 300, Armed: new(noon.Add(-3 * time.Hour)),
			Session: 9, Generation: 2, Conmgr: "0b000000000000000000000000000000", Incarnation: 1 << 60,
			Relation: "suspended", Case: "timeout", SilentMS: new(int64(301)),
		},
		{
			Addr: addr("10.99.0.1"), Port: 40000, Transport: "udp", Key: "alpha", State: "up", Reason: "armed",
			IntervalMS: 100, TimeoutMS: 300, RTTMS: 0.245, HeardMS: new(int64(42)), Received: 19990, Lost: 10, Sent: 20000, SentLost: 3,
			Armed: new(noon.Add(-33 * time.Minute)), Session: 11, Generation: 1, Conmgr: "0a000000000000000000000000000000",
			Incarnation: 1 << 60, Relation: "armed",
		},
		{
			Addr: addr("fd99::1"), Port: 50000, Transport: "tcp", State: "suspect", Reason: "fuse",
			IntervalMS: 1000, TimeoutMS: 3000, RTTMS: 12.5, HeardMS: new(int64(3400)), Received: 100, Sent: 100, Held: true,
			Armed: new(noon.Add(-50 * time.Hour)), Session: 12, Generation: 1, Conmgr: "0c000000000000000000000000000000",
			Incarnation: 1, Relation: "armed",
		},
		{
			Addr: addr("10.99.0.7"), State: "down", Reason: "disconnect", TimeoutMS: 3000, Armed: new(noon.Add(-time.Hour)),
			Session: 10, Generation: 1, Conmgr: "0d000000000000000000000000000000", Incarnation: 5,
			Relation: "waiting", Case: "disconnect", LeftMS: new(int64(2100)), SilentMS: new(int64(12)),
		},
		{
			Addr: addr("127.0.0.1"), Port: 41000, Transport: "tcp", State: "up", Reason: "armed", IntervalMS: 10000, TimeoutMS: 20000,
			HeardMS: new(int64(9000)), Received: 1, Sent: 1, Session: 13, Conmgr: "0e000000000000000000000000000000", Incarnation: 6, Protected: true,
		},
		{
			Addr: addr("192.0.2.1"), Port: 42000, Transport: "tcp", State: "init", Reason: "opened", IntervalMS: 50, TimeoutMS: 150,
			Session: 14, Conmgr: "0f000000000000000000000000000000", Incarnation: 7,
		},
	}
}
