// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// sample is a look that has one of everything.
func sample() *look {
	const ms = time.Millisecond
	at := netip.MustParseAddrPort
	healthy := row{
		Socket: sockdiag.Socket{
			Family: sockdiag.IPv4, Local: at("10.99.0.2:5432"), Remote: at("10.99.0.1:40000"),
			State: sockdiag.Established, Cookie: 1<<53 + 1, Inode: 4711, UID: 105,
			Timer: sockdiag.Timer{Kind: sockdiag.TimerKeepalive, Expires: 7190 * time.Second},
			Info: &sockdiag.Info{
				RTO: 204 * ms, RTT: 45 * time.Microsecond, RTTVar: 12 * time.Microsecond, MinRTT: 20 * time.Microsecond,
				TotalRetrans: 3, LastDataSent: 1200 * ms, LastDataReceived: 1210 * ms, LastAckReceived: 1190 * ms,
				BytesAcked: 1 << 40, BytesReceived: 99,
			},
		},
		user: "postgres", owners: []process{{4242, "postgres"}},
		backend: &backend{
			pid: 4242, user: "app", database: "shop", state: "idle in transaction", kind: "client backend",
			queryStart: noon.Add(-83 * time.Second), queryAgo: 83 * time.Second,
		},
	}
	dead := healthy
	dead.Remote, dead.Cookie, dead.SendQueue, dead.RecvQueue = at("10.99.0.7:51234"), 2, 2621440, 12
	dead.Timer = sockdiag.Timer{Kind: sockdiag.TimerRetransmit, Expires: 13 * time.Second, Retries: 6}
	dead.Info = &sockdiag.Info{
		RTO: 26 * time.Second, RTT: 1250 * time.Microsecond, Retransmits: 6, TotalRetrans: 9, Unacked: 44, Lost: 44,
		LastDataSent: 13 * time.Second, LastDataReceived: 26 * time.Hour, LastAckReceived: 65 * time.Second,
	}
	dead.owners = []process{{4243, "postgres"}, {4244, "postgres"}, {4245, "postgres"}}
	dead.backend = &backend{pid: 4243, user: "app\x1b[31m", database: "shop", state: "active", kind: "client backend", queryStart: noon, queryAgo: 0}
	mapped := healthy
	mapped.Family, mapped.Remote, mapped.Cookie, mapped.owners, mapped.user = sockdiag.IPv6, at("192.0.2.1:65535"), 3, nil, "4294967294"
	mapped.State, mapped.backend = sockdiag.CloseWait, &backend{pid: 4300, user: "repl", state: "", kind: "walsender"}
	local := healthy
	local.Family, local.Local, local.Remote = sockdiag.IPv6, at("[fe80::99ff:fe00:2]:5432"), at("[fe80::99ff:fe00:1]:40001")
	local.Interface, local.iface, local.backend = 7, "eth0", nil
	listen := row{Socket: sockdiag.Socket{
		Family: sockdiag.IPv6, Local: at("[::]:5432"), Remote: at("[::]:0"), State: sockdiag.Listen, Cookie: 5, Inode: 1, UID: 105,
		SendQueue: 200, Info: &sockdiag.Info{},
	}, user: "postgres", owners: []process{{4000, "postgres"}}}
	past := row{Socket: sockdiag.Socket{
		Family: sockdiag.IPv4, Local: at("10.99.0.2:5432"), Remote: at("10.99.0.1:40002"), State: sockdiag.TimeWait, Cookie: 6,
		Timer: sockdiag.Timer{Kind: sockdiag.TimerTimeWait, Expires: 59 * time.Second},
	}}
	return &look{at: noon, rows: []row{healthy, dead, mapped, local, listen, past}}
}

// shown is what stands on the terminal, or in the pipe.
func shown(t *testing.T, columns int, joined bool) string {
	t.Helper()
	s := newSession(columns, "")
	if err := sample().picture(joined).printTable(&s.env); err != nil {
		t.Fatal(err)
	}
	return s.out.String()
}

func TestTableGolden(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{0, 40, 80, 200} {
		for _, joined := range []bool{false, true} {
			name := fmt.Sprintf("sockets-%d.txt", columns)
			if joined {
				name = fmt.Sprintf("sockets-dsn-%d.txt", columns)
			}
			got := shown(t, columns, joined)
			golden(t, name, got)
			if strings.Contains(got, "\x1b") {
				t.Errorf("%s: a name steers the terminal", name)
			}
			checkWidth(t, name, got, columns)
		}
	}
}

// checkWidth wants no line beyond the terminal.
func checkWidth(t *testing.T, name, text string, columns int) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); columns > 0 && n > columns {
			t.Errorf("%s: %d characters in %q", name, n, line)
		}
	}
}

// At every width the table fits, and states, ports and peers can be told apart.
func TestTableFitsEveryWidth(t *testing.T) {
	t.Parallel()
	for columns := 50; columns <= 260; columns++ {
		for _, joined := range []bool{false, true} {
			got := shown(t, columns, joined)
			checkWidth(t, fmt.Sprint(columns), got, columns)
			for _, want := range []string{"ESTAB", "CLOSE_WAIT", ":40000", ":51234", ":65535", ":40001", "99.0.7:51234"} {
				if !strings.Contains(got, want) {
					t.Errorf("%d columns: no %s in\n%s", columns, want, got)
				}
			}
		}
	}
}

func TestJSONGolden(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := printSockets(&out, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "sockets.jsonl", out.String())
	// The help names every field.
	for _, name := range jsonNames(t, out.String()) {
		if !strings.Contains(socketsUsage, name) {
			t.Errorf("help says nothing about %s", name)
		}
	}
}

func TestKillJSONGolden(t *testing.T) {
	t.Parallel()
	o := killOptions{json: true, peer: netip.MustParseAddr("10.99.0.1")}
	seen := sample()
	seen.rows = seen.rows[:3]
	outcomes := []sockdiag.Outcome{
		{Result: sockdiag.Destroyed}, {Result: sockdiag.Gone},
		{Result: sockdiag.NotPermitted, Err: sockdiag.ErrNotPermitted},
	}
	s := newSession(0, "")
	if err := o.printResults(&s.env, seen, outcomes); err == nil || err.Error() != "1 socket of 3 are not destroyed" {
		t.Errorf("error %v", err)
	}
	golden(t, "kill.jsonl", s.out.String())
}

func TestFrameGolden(t *testing.T) {
	t.Parallel()
	seen := sample()
	for len(seen.rows) < 40 {
		seen.rows = append(seen.rows, seen.rows[0])
	}
	seen.notes = []string{"a note that is longer than the terminal is wide, so that it has to be cut somewhere in the middle of it all"}
	p := seen.picture(false)
	got := p.frame(2*time.Second, 80, 24, true)
	golden(t, "frame-80.txt", strings.ReplaceAll(got, "\x1b", "ESC"))
	if lines := strings.Count(got, "\r\n"); lines != 23 {
		t.Errorf("%d lines on a terminal of 24: it scrolls at 24", lines)
	}
	again := p.frame(2*time.Second, 80, 24, false)
	if strings.Contains(again, clearScreen) || !strings.HasPrefix(again, cursorHome) {
		t.Errorf("the second frame begins with %.20q", again)
	}
}
