// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"fmt"
	"net/netip"
	"time"
)

// Family is the address family of a socket, numbered as in the kernel.
type Family uint8

// Families.
const (
	IPv4 Family = 2  // AF_INET
	IPv6 Family = 10 // AF_INET6, mapped IPv4 addresses included
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// Socket is a TCP socket as it was when the kernel was asked. It is a plain
// value; [Conn.Destroy] names the socket to the kernel by Family, Local, Remote,
// Interface and Cookie, and goes by State.
type Socket struct {
	Family Family
	// Local and Remote have no zone; mapped IPv4 addresses are IPv4 here, with
	// Family IPv6. Remote of a listening socket is unspecified, port 0.
	Local, Remote netip.AddrPort
	// Interface is the index of the interface that the socket is bound to, which
	// is the zone of link-local addresses. 0: none.
	Interface uint32
	State     State
	// Cookie is the kernel's number of this socket, never given twice while the
	// machine runs.
	Cookie uint64
	// Inode is that of the owner's file. 0: an orphan, or not yet accepted.
	Inode uint32
	UID   uint32 // the owner's user
	// RecvQueue is received and not yet read, in bytes; with Listen, connections
	// to accept.
	RecvQueue uint32
	// SendQueue is written and not yet acknowledged, in bytes; with Listen, how
	// many connections may wait.
	SendQueue uint32
	Timer     Timer
	// Info is what TCP knows of the connection; nil when it was not asked for
	// ([Filter.Info]) or the kernel has none (TIME_WAIT, SYN_RECV).
	Info *Info
}

// String returns the local and remote address and the state.
func (s Socket) String() string {
	return fmt.Sprintf("%v-%v %v", s.Local, s.Remote, s.State)
}

// TimerKind is what a socket waits for, numbered as in inet_diag.
type TimerKind uint8

// Kinds of timer.
const (
	TimerNone       TimerKind = iota
	TimerRetransmit           // sends again; tail loss probes, too
	TimerKeepalive            // asks an idle peer; ends SYN_SENT and FIN_WAIT2, too
	TimerTimeWait
	TimerProbe // asks a peer with a closed window
)

var timerNames = [...]string{"none", "retransmit", "keepalive", "timewait", "probe"}

// String names the kind.
func (k TimerKind) String() string {
	if int(k) >= len(timerNames) {
		return fmt.Sprintf("timer(%d)", uint8(k))
	}
	return timerNames[k]
}

// Timer is the timer of a socket that fires next.
type Timer struct {
	Kind    TimerKind
	Expires time.Duration // from the answer on, to the millisecond
	// Retries counts how often it has fired in vain.
	Retries uint8
}
