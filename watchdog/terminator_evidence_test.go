// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

const (
	pgAddr     = "10.99.0.2:5432"
	clientAddr = "10.99.0.1:40000"
)

// heardAgo is a client's socket whose peer was heard so long before the answer.
func heardAgo(local, remote string, ago time.Duration) sockdiag.Socket {
	s := sockdiag.Socket{
		Family: sockdiag.IPv4, State: sockdiag.Established,
		Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		Info: &sockdiag.Info{LastDataReceived: ago + time.Hour, LastAckReceived: ago},
	}
	s.Cookie = uint64(s.Remote.Port())
	if s.Local.Addr().Is6() {
		s.Family = sockdiag.IPv6
	}
	return s
}

// TestWeighEvidence: the last valid frame came at 1,000 ms, one every 100 ms; the
// verdict fell at 1,300 ms, and the look is at 1,310 ms.
func TestWeighEvidence(t *testing.T) {
	t.Parallel()
	const ms = mono.Instant(time.Millisecond)
	at := func(instant int) time.Duration { return time.Duration(1310-instant) * time.Millisecond }
	data := heardAgo(pgAddr, clientAddr, time.Hour)
	data.Info.LastDataReceived = at(1200)
	bare := heardAgo(pgAddr, clientAddr, 0)
	bare.Info = nil
	for _, test := range []struct {
		name      string
		sockets   []sockdiag.Socket
		heartbeat mono.Instant
		restored  bool
		alive     bool
		text      string
	}{
		{"nothing", nil, 0, false, false, "no socket"},
		{"silent since before the frame", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(500))}, 0, false, false, "heard -500ms after the last valid frame"},
		{"until the next frame was due", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(1110))}, 0, false, false, "110ms after"},
		{"an acknowledgement later", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(1111))}, 0, false, true, "host alive"},
		{"data later", []sockdiag.Socket{data}, 0, false, true, "200ms after"},
		{"one of many", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(900)), heardAgo("10.99.0.2:22", "10.99.0.1:50000", at(1290)), heardAgo(pgAddr, "10.99.0.1:3", at(800))}, 0, false, true, "newest of 3 sockets heard 290ms after the last valid frame, on 10.99.0.2:22-10.99.0.1:50000"},
		{"the heartbeat's own kernel", nil, 1250 * ms, false, true, "on the heartbeat connection"},
		{"the heartbeat in time", nil, 1100 * ms, false, false, "host silent"},
		{"without figures", []sockdiag.Socket{bare}, 0, false, false, "no socket"},
		{"restored, silent", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(1110))}, 0, true, false, "after one timeout before the verdict"},
		{"restored, heard", []sockdiag.Socket{heardAgo(pgAddr, clientAddr, at(1150))}, 0, true, true, "host alive"},
	} {
		w := &Warrant{LastValid: 1000 * ms, Verdict: 1300 * ms, Interval: 100 * time.Millisecond, Timeout: 300 * time.Millisecond}
		if test.restored {
			w.LastValid = 0
		}
		e := weigh(w, test.sockets, test.heartbeat, 1310*ms)
		if e.HostAlive != test.alive || !strings.Contains(e.Text, test.text) {
			t.Errorf("%s: %+v: want alive %v, %q", test.name, e, test.alive, test.text)
		}
	}
}

// TestLookStates: a socket that has heard nobody has the times of the machine's
// start and proves nothing.
func TestLookStates(t *testing.T) {
	t.Parallel()
	for _, s := range []sockdiag.State{sockdiag.SynSent, sockdiag.SynRecv, sockdiag.Listen, sockdiag.TimeWait, sockdiag.Close} {
		if lookStates.Has(s) {
			t.Errorf("%v is taken for evidence", s)
		}
	}
	if !lookStates.Has(sockdiag.Established) || !lookStates.Has(sockdiag.FinWait1) {
		t.Error("living connections are no evidence")
	}
}

// TestSocketFate: an instance at one address and its pooler; the verdict fell at
// 1,000 ms, and the sockets were looked at until 1,020 ms.
func TestSocketFate(t *testing.T) {
	t.Parallel()
	const ms = mono.Instant(time.Millisecond)
	heard := func(local, remote string, instant int) sockdiag.Socket {
		return heardAgo(local, remote, time.Duration(1020-instant)*time.Millisecond)
	}
	d := decree{
		verdict:    1000 * ms,
		walsenders: []uint16{41000},
		own:        []netip.AddrPort{netip.MustParseAddrPort("10.99.0.1:42000")},
		reach: reach{
			listeners: []sockdiag.Socket{{Family: sockdiag.IPv4, State: sockdiag.Listen, Local: netip.MustParseAddrPort(pgAddr)}},
			ports:     []uint16{6432},
		},
	}
	noFigures, orphan := heard(pgAddr, clientAddr, 500), heard(pgAddr, clientAddr, 500)
	noFigures.Info, orphan.State = nil, sockdiag.FinWait1
	for _, test := range []struct {
		name string
		s    sockdiag.Socket
		want fate
	}{
		{"silent", heard(pgAddr, clientAddr, 900), fateDestroy},
		{"silent, by a hair", heard(pgAddr, clientAddr, 989), fateDestroy},
		{"within a tick of the verdict", heard(pgAddr, clientAddr, 990), fateBusy},
		{"new", heard(pgAddr, clientAddr, 1001), fateBusy},
		{"without figures", noFigures, fateBusy},
		{"an orphan", orphan, fateOutside},
		{"replication", heard(pgAddr, "10.99.0.1:41000", 500), fateSpared},
		{"a pooler's client with that port", heard("10.99.0.2:6432", "10.99.0.1:41000", 500), fateDestroy},
		{"the agent's own", heard(pgAddr, "10.99.0.1:42000", 500), fateSpared},
		{"the pooler", heard("10.99.0.2:6432", clientAddr, 500), fateDestroy},
		{"the pooler at another address", heard("10.99.0.200:6432", clientAddr, 500), fateDestroy},
		{"another cluster at another address", heard("10.99.0.200:5432", clientAddr, 500), fateOutside},
		{"another port", heard("10.99.0.2:5433", clientAddr, 500), fateOutside},
		{"the other end of a connection of ours", heard("10.99.0.2:40000", "10.99.0.1:5432", 500), fateOutside},
	} {
		if got := d.fate(&test.s, 1020*ms); got != test.want {
			t.Errorf("%s: fate %d: want %d", test.name, got, test.want)
		}
	}
}
