// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// kernelTick is how far off the times of a tcp_info can be: the longest tick
// that Linux can be built with (CONFIG_HZ_100).
const kernelTick = 10 * time.Millisecond

// lookStates are those in which a segment of the peer has been received and is
// remembered. A SYN_SENT socket has never heard anybody, and its times are those
// of the machine's start.
var lookStates = sockdiag.StatesOf(sockdiag.Established, sockdiag.FinWait1, sockdiag.FinWait2,
	sockdiag.CloseWait, sockdiag.LastAck, sockdiag.Closing)

// weigh is the rule of the last look: the host lives when its kernel was heard
// later than one interval after the last valid frame, when the next frame was
// due. found are all TCP sockets with it, heartbeat is when the kernel was last
// heard on the connection whose session ended (zero: never), looked an instant
// before the sockets were asked for: a sign of life must not look younger than
// it is.
func weigh(w *Warrant, found []sockdiag.Socket, heartbeat, looked mono.Instant) Evidence {
	last, since := w.LastValid, "the last valid frame"
	if last.IsZero() {
		last, since = w.Verdict.Add(-w.Timeout), "one timeout before the verdict"
	}
	newest, where := heartbeat, "the heartbeat connection"
	sockets := 0
	for i := range found {
		s := &found[i]
		if s.Info == nil {
			continue
		}
		sockets++
		if at := looked.Add(-s.Info.LastReceived()); at.After(newest) {
			newest, where = at, s.String()
		}
	}
	e := Evidence{HostAlive: newest.After(last.Add(w.Interval + kernelTick))}
	what := "host silent"
	if e.HostAlive {
		what = "host alive"
	}
	if newest.IsZero() {
		e.Text = what + ": no socket of it"
		return e
	}
	e.Text = fmt.Sprintf("%s: newest of %d sockets heard %v after %s, on %s",
		what, sockets, newest.Sub(last).Round(time.Millisecond), since, where)
	return e
}

// fate is what becomes of a socket in the socket step.
type fate uint8

const (
	fateOutside fate = iota // no client of this instance
	fateSpared              // of a replication that is spared, or the agent's own
	fateBusy                // heard since the verdict: new, or the database step's
	fateDestroy
)

// decree is what the fate of a socket depends on beside itself.
type decree struct {
	reach   reach
	verdict mono.Instant
	// walsenders are the client ports of replication to be spared; own are the
	// client ends of the agent's own connections.
	walsenders []uint16
	own        []netip.AddrPort
}

// fate decides about a socket of the warrant's address. after is an instant when
// the socket had been looked at: what was received must not look older than it is.
//
// Only a socket that the host has said nothing on since the verdict is destroyed:
// a connection that began after it has received at least its handshake. What an
// old one of a living host received since is left to the database step, which
// knows when its session began.
func (d *decree) fate(s *sockdiag.Socket, after mono.Instant) fate {
	switch {
	case !sockdiag.Killable.Has(s.State) || !d.reach.covers(s):
		return fateOutside
	case slices.Contains(d.own, s.Remote), d.reach.ofInstance(s) && slices.Contains(d.walsenders, s.Remote.Port()):
		return fateSpared
	case s.Info == nil || !after.Add(kernelTick-s.Info.LastReceived()).Before(d.verdict):
		return fateBusy
	}
	return fateDestroy
}
