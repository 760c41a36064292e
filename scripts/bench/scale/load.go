// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	verbLoad = "load"
	// perAddress is what a watchdog admits of one address.
	perAddress = 8
	// dialEvery spreads the sessions of a process over the interval.
	dialEvery = 3 * time.Millisecond
)

// load is a process that plays many conmgrs.
type load struct {
	loop           *peer.Loop
	to             netip.AddrPort
	udp            bool
	first          int // number of the first session
	count          int
	key            *key.Key
	begun          int
	armed          int
	ended          int
	out            io.Writer
	dialer, ticker *peer.Timer
}

// runLoad plays COUNT conmgrs from FIRST on, until it is killed:
//
//	load ADDRESS:PORT udp|tcp FIRST COUNT KEYFILE
//
// Every second it writes how many sessions are armed, and how many have ended.
func runLoad(args []string, out io.Writer) (err error) {
	if len(args) != 5 {
		return errors.New("expected ADDRESS:PORT TRANSPORT FIRST COUNT KEYFILE")
	}
	l := &load{udp: args[1] == "udp", out: out}
	if l.to, err = netip.ParseAddrPort(args[0]); err != nil {
		return err
	}
	if l.first, err = strconv.Atoi(args[2]); err != nil {
		return err
	}
	if l.count, err = strconv.Atoi(args[3]); err != nil {
		return err
	}
	ring, err := keyfile.Load(args[4])
	if err != nil {
		return err
	}
	l.key = ring.First()
	if l.loop, err = peer.NewLoop(nil); err != nil {
		return err
	}
	l.dialer, l.ticker = l.loop.NewTimer(l.dialNext), l.loop.NewTimer(l.tell)
	l.loop.Do(func() {
		l.dialNext()
		l.tell()
	})
	g, ctx := errgroup.WithContext(context.Background())
	g.Go(func() error { return l.loop.Run(ctx) })
	return g.Wait()
}

func (l *load) dialNext() {
	n := l.first + l.begun
	var self wire.ID
	binary.BigEndian.PutUint64(self[8:], uint64(n)+1)
	l.loop.Dial(peer.DialConfig{
		Heartbeat: heartbeat.Config{
			Interval: interval, Timeout: timeout, ConnectInterval: time.Second, ConnectTimeout: 5 * time.Second,
			Datagram: l.udp, Self: self, Incarnation: 1,
		},
		Key:   func() *key.Key { return l.key },
		Local: sourceOf(n),
	}, l.to, l)
	l.begun++
	if l.begun < l.count {
		l.dialer.Set(l.loop.Now().Add(dialEvery))
	}
}

// sourceOf is the address of the n-th session.
func sourceOf(n int) netip.Addr {
	host := 1 + n/perAddress
	return netip.AddrFrom4([4]byte{10, 100, byte(host >> 8), byte(host)})
}

func (l *load) tell() {
	fmt.Fprintln(l.out, l.armed, l.ended)
	l.ticker.Set(l.loop.Now().Add(time.Second))
}

// Changed implements peer.Handler.
func (l *load) Changed(_ *peer.Session, c heartbeat.Change) {
	switch {
	case c.From == wire.StateInit && c.To == wire.StateUp:
		l.armed++
	case heartbeat.Armed(c.From) && !heartbeat.Armed(c.To):
		l.armed--
		l.ended++
	}
}

// Told, Refused and Broken implement peer.Handler.
func (l *load) Told(*peer.Session)                       {}
func (l *load) Refused(*peer.Session, wire.Refuse, bool) {}
func (l *load) Broken(*peer.Session, error)              {}
