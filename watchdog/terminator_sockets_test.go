// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// fakeTable is a kernel with the sockets of one client.
type fakeTable struct {
	sockets   []sockdiag.Socket
	destroyed []uint64 // cookies, in order
	finds     int      // of the client's sockets
	closed    int
	// result, when set, is what becomes of every socket.
	result sockdiag.Result
	// sticky sockets are found again; arriving ones come with each look.
	sticky   bool
	arriving func(look int) []sockdiag.Socket
	findErr  error
}

func (f *fakeTable) Find(_ context.Context, filter sockdiag.Filter) ([]sockdiag.Socket, error) {
	if filter.States.Has(sockdiag.Listen) {
		return []sockdiag.Socket{listener(pgAddr)}, nil
	}
	f.finds++
	if f.arriving != nil {
		f.sockets = append(f.sockets, f.arriving(f.finds)...)
	}
	return slices.Clone(f.sockets), f.findErr
}

func (f *fakeTable) Destroy(_ context.Context, sockets []sockdiag.Socket) ([]sockdiag.Outcome, error) {
	var outcomes []sockdiag.Outcome
	for _, s := range sockets {
		f.destroyed = append(f.destroyed, s.Cookie)
		o := sockdiag.Outcome{Result: sockdiag.Destroyed}
		switch {
		case f.result == sockdiag.NotPermitted:
			o = sockdiag.Outcome{Result: f.result, Err: &sockdiag.OpError{Op: "destroy", Kind: sockdiag.ErrNotPermitted}}
		case f.result != 0:
			o.Result = f.result
		}
		outcomes = append(outcomes, o)
		if !f.sticky && f.result != sockdiag.NotPermitted {
			f.sockets = slices.DeleteFunc(f.sockets, func(other sockdiag.Socket) bool { return other.Cookie == s.Cookie })
		}
	}
	return outcomes, nil
}

func (f *fakeTable) Close() error {
	f.closed++
	return nil
}

// lostClient is a kernel with n sockets of a client that has been silent for
// two seconds.
func lostClient(n int) *fakeTable {
	f := new(fakeTable)
	for i := range n {
		s := heardAgo(pgAddr, clientAddr, 2*time.Second)
		s.Remote = netip.AddrPortFrom(s.Remote.Addr(), uint16(40000+i))
		s.Cookie = uint64(i + 1)
		f.sockets = append(f.sockets, s)
	}
	return f
}

func (f *fakeTable) peerSockets(log *bytes.Buffer) *peerSockets {
	return &peerSockets{
		dial:  func() (socketTable, error) { return f, nil },
		scope: func() scope { return scope{listens: []netip.AddrPort{netip.MustParseAddrPort(pgAddr)}} },
		own:   func() []netip.AddrPort { return nil },
		heard: func(netip.Addr) mono.Instant { return 0 },
		log:   slog.New(slog.NewTextHandler(log, nil)),
	}
}

func lostWarrant() Warrant {
	now := clock.Now()
	return Warrant{ID: 1, Addr: netip.MustParseAddr("10.99.0.1"), Verdict: now, LastValid: now.Add(-time.Second), Interval: 100 * time.Millisecond, Timeout: time.Second}
}

func TestSocketsDestroy(t *testing.T) {
	t.Parallel()
	fresh := func(look int) []sockdiag.Socket {
		s := heardAgo(pgAddr, "10.99.0.1:50000", 0)
		s.Cookie = uint64(1000 + look)
		return []sockdiag.Socket{s}
	}
	late := func(look int) []sockdiag.Socket {
		if look != 2 {
			return nil
		}
		s := heardAgo(pgAddr, "10.99.0.1:50000", 2*time.Second)
		s.Cookie = 1000
		return []sockdiag.Socket{s}
	}
	for _, test := range []struct {
		name  string
		table func(*fakeTable)
		want  SocketsResult
		finds int
	}{
		{"until none is left", func(*fakeTable) {}, SocketsResult{Found: 3, Destroyed: 3, Text: "3 destroyed"}, 2},
		{"gone is as good", func(f *fakeTable) { f.result = sockdiag.Gone }, SocketsResult{Found: 3, Destroyed: 3, Text: "3 destroyed"}, 2},
		{"missed by the first look", func(f *fakeTable) { f.arriving = late }, SocketsResult{Found: 4, Destroyed: 4, Text: "4 destroyed"}, 3},
		{"new ones live", func(f *fakeTable) { f.arriving = fresh }, SocketsResult{Found: 3, Destroyed: 3, Busy: 2, Text: "3 destroyed, 2 heard since the verdict"}, 2},
		{"not without end", func(f *fakeTable) { f.sticky, f.result = true, sockdiag.Failed }, SocketsResult{Found: 3, Left: 3, Text: "0 destroyed, 3 left"}, maxLooks},
	} {
		f := lostClient(3)
		test.table(f)
		var log bytes.Buffer
		got, err := f.peerSockets(&log).Destroy(t.Context(), lostWarrant(), nil)
		if err != nil || got != test.want || f.finds != test.finds || log.Len() > 0 {
			t.Errorf("%s: %+v, %v after %d looks: want %+v after %d\n%s", test.name, got, err, f.finds, test.want, test.finds, &log)
		}
		for _, cookie := range f.destroyed {
			if cookie > 1000 {
				t.Errorf("%s: a new connection was destroyed", test.name)
			}
		}
	}
}

// TestSocketsLookOnce: the last look's dump is the first find of the same warrant,
// unless it is old.
func TestSocketsLookOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fresh time.Duration
		other bool
		finds int
	}{{time.Hour, false, 2}, {time.Hour, true, 3}, {0, false, 3}} {
		f := lostClient(3)
		p := f.peerSockets(new(bytes.Buffer))
		p.fresh = test.fresh
		w := lostWarrant()
		if e, err := p.LastLook(t.Context(), w); err != nil || e.HostAlive {
			t.Errorf("last look %+v, %v", e, err)
		}
		if test.other {
			w.ID++
		}
		if got, err := p.Destroy(t.Context(), w, nil); err != nil || got.Destroyed != 3 || f.finds != test.finds {
			t.Errorf("%+v: %+v, %v after %d finds", test, got, err, f.finds)
		}
	}
}

// TestSocketsSpared: replication and the agent's own connections.
func TestSocketsSpared(t *testing.T) {
	t.Parallel()
	f := lostClient(3)
	p := f.peerSockets(new(bytes.Buffer))
	p.own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.99.0.1:40002")} }
	got, err := p.Destroy(t.Context(), lostWarrant(), []uint16{40000})
	want := SocketsResult{Found: 1, Destroyed: 1, Spared: 2, Text: "1 destroyed, 2 spared"}
	if err != nil || got != want || !slices.Equal(f.destroyed, []uint64{2}) {
		t.Errorf("%+v, %v, destroyed %v: want %+v", got, err, f.destroyed, want)
	}
}

func TestSocketsDryRun(t *testing.T) {
	t.Parallel()
	f := lostClient(3)
	w := lostWarrant()
	w.DryRun = true
	got, err := f.peerSockets(new(bytes.Buffer)).Destroy(t.Context(), w, nil)
	if err != nil || got.Text != "dry run: 3 would be destroyed" || len(f.destroyed) > 0 {
		t.Errorf("%+v, %v, destroyed %v", got, err, f.destroyed)
	}
}

// TestSocketsNotPermitted: one warning, and nobody is asked again.
func TestSocketsNotPermitted(t *testing.T) {
	t.Parallel()
	f := lostClient(3)
	f.result = sockdiag.NotPermitted
	var log bytes.Buffer
	p := f.peerSockets(&log)
	for range 3 {
		got, err := p.Destroy(t.Context(), lostWarrant(), nil)
		if err != nil || got.Destroyed > 0 || !strings.Contains(got.Text, "CAP_NET_ADMIN is missing") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || f.finds != 1 || !strings.Contains(log.String(), "AmbientCapabilities") {
		t.Errorf("%d warnings, %d looks: want one each\n%s", n, f.finds, &log)
	}
	if e, err := p.LastLook(t.Context(), lostWarrant()); err != nil || e.HostAlive || !strings.Contains(e.Text, "newest of 3 sockets") {
		t.Errorf("last look without the right: %+v, %v", e, err)
	}
}

// TestSocketsProve: what keeps the agent from finding out is no missing right.
func TestSocketsProve(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err       error
		unable    bool
		says, not string
	}{
		{nil, false, "", "WARN"},
		{sockdiag.ErrNotPermitted, true, "CAP_NET_ADMIN", "CONFIG"},
		{sockdiag.ErrNotSupported, true, "CONFIG_INET_DIAG_DESTROY", "AmbientCap"},
		{errors.New("no loopback"), false, "cannot tell", "hint"},
	} {
		var log bytes.Buffer
		p := lostClient(0).peerSockets(&log)
		p.prove(t.Context(), func(context.Context) error { return test.err })
		if (p.unable != nil) != test.unable || !strings.Contains(log.String(), test.says) || strings.Contains(log.String(), test.not) {
			t.Errorf("%v: unable %v, log %q", test.err, p.unable, &log)
		}
	}
}

// TestSocketsBroken: after an error the next question opens a new connection to
// the kernel, and what the heartbeat's own says still counts.
func TestSocketsBroken(t *testing.T) {
	t.Parallel()
	f := lostClient(3)
	f.findErr = sockdiag.ErrBroken
	p := f.peerSockets(new(bytes.Buffer))
	p.heard = func(netip.Addr) mono.Instant { return clock.Now() }
	if e, err := p.LastLook(t.Context(), lostWarrant()); !errors.Is(err, sockdiag.ErrBroken) || !e.HostAlive {
		t.Errorf("%+v, %v: want alive by the heartbeat, and the error", e, err)
	}
	if f.closed != 1 || p.table != nil {
		t.Errorf("closed %d times", f.closed)
	}
	f.findErr = nil
	if got, err := p.Destroy(t.Context(), lostWarrant(), nil); err != nil || got.Destroyed != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLifeSigns keeps the newest sign of each address.
func TestLifeSigns(t *testing.T) {
	t.Parallel()
	var l lifeSigns
	a, mapped := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("::ffff:10.99.0.1")
	l.ended(a, 7)
	l.ended(mapped, 5)
	if got := l.last(a); got != 7 || l.last(netip.MustParseAddr("10.99.0.3")) != 0 {
		t.Errorf("last sign %d: want 7, and none of a stranger", got)
	}
}
