// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// socketObject is a socket in JSON. Its names are an interface for scripts: they
// stand in the help, and a golden test keeps them.
type socketObject struct {
	Time         time.Time   `json:"time"`
	State        string      `json:"state"`
	Family       string      `json:"family"`
	LocalAddress netip.Addr  `json:"local_address"`
	LocalPort    uint16      `json:"local_port"`
	PeerAddress  *netip.Addr `json:"peer_address"`
	PeerPort     *uint16     `json:"peer_port"`
	Interface    *string     `json:"interface"`
	RecvQueue    uint32      `json:"recv_queue"`
	SendQueue    uint32      `json:"send_queue"`

	RTT              *float64 `json:"rtt_ms"`
	RTTVar           *float64 `json:"rttvar_ms"`
	MinRTT           *float64 `json:"min_rtt_ms"`
	RTO              *float64 `json:"rto_ms"`
	Retransmits      *uint8   `json:"retransmits"`
	RetransmitsTotal *uint32  `json:"retransmits_total"`
	Probes           *uint8   `json:"probes"`
	Unacked          *uint32  `json:"unacked"`
	Lost             *uint32  `json:"lost"`
	BytesAcked       *uint64  `json:"bytes_acked"`
	BytesReceived    *uint64  `json:"bytes_received"`
	LastDataSent     *float64 `json:"last_data_sent_ago_ms"`
	LastDataReceived *float64 `json:"last_data_received_ago_ms"`
	LastAckReceived  *float64 `json:"last_ack_received_ago_ms"`

	Timer     *timerObject   `json:"timer"`
	UID       *uint32        `json:"uid"`
	User      *string        `json:"user"`
	Processes []process      `json:"processes"` // null: unknown
	Inode     *uint32        `json:"inode"`
	Cookie    string         `json:"cookie"` // 64 bits do not fit the numbers of every reader
	Backend   *backendObject `json:"backend"`
}

type timerObject struct {
	Kind    string  `json:"kind"`
	Expires float64 `json:"expires_ms"`
	Retries uint8   `json:"retries"`
}

type backendObject struct {
	PID        int32      `json:"pid"`
	User       *string    `json:"user"`
	Database   *string    `json:"database"`
	State      *string    `json:"state"`
	QueryStart *time.Time `json:"query_start"`
	Type       *string    `json:"backend_type"`
}

// unless returns a pointer to v, or nil when v says that there is nothing.
func unless[T comparable](nothing, v T) *T {
	if v == nothing {
		return nil
	}
	return &v
}

func objectOf(at time.Time, r *row) socketObject {
	o := socketObject{
		Time: at.UTC(), State: r.State.String(), Family: r.Family.String(),
		LocalAddress: r.Local.Addr(), LocalPort: r.Local.Port(), Interface: unless("", r.iface),
		RecvQueue: r.RecvQueue, SendQueue: r.SendQueue, User: unless("", r.user), Processes: r.owners,
		Inode: unless(0, r.Inode), Cookie: strconv.FormatUint(r.Cookie, 10),
	}
	if owned(&r.Socket) {
		o.UID = &r.UID
	}
	if r.Remote.Port() != 0 {
		o.PeerAddress, o.PeerPort = new(r.Remote.Addr()), new(r.Remote.Port())
	}
	if r.Timer.Kind != sockdiag.TimerNone {
		o.Timer = &timerObject{r.Timer.Kind.String(), milliseconds(r.Timer.Expires), r.Timer.Retries}
	}
	if r.Info != nil && r.State != sockdiag.Listen {
		o.addInfo(r.Info)
	}
	if b := r.backend; b != nil {
		o.Backend = &backendObject{
			b.pid, unless("", b.user), unless("", b.database), unless("", b.state),
			unless(time.Time{}, b.queryStart.UTC()), unless("", b.kind),
		}
	}
	return o
}

func (o *socketObject) addInfo(i *sockdiag.Info) {
	measured := func(d time.Duration) *float64 { return unless(0, milliseconds(d)) }
	o.RTT, o.RTTVar, o.MinRTT, o.RTO = measured(i.RTT), measured(i.RTTVar), measured(i.MinRTT), measured(i.RTO)
	o.Retransmits, o.RetransmitsTotal, o.Probes = &i.Retransmits, &i.TotalRetrans, &i.Probes
	o.Unacked, o.Lost, o.BytesAcked, o.BytesReceived = &i.Unacked, &i.Lost, &i.BytesAcked, &i.BytesReceived
	o.LastDataSent = new(milliseconds(i.LastDataSent))
	o.LastDataReceived = new(milliseconds(i.LastDataReceived))
	o.LastAckReceived = new(milliseconds(i.LastAckReceived))
}

// printSockets writes one object per line.
func printSockets(w io.Writer, seen *look) error {
	for i := range seen.rows {
		if err := printJSON(w, objectOf(seen.at, &seen.rows[i])); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}
