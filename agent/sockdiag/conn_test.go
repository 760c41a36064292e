// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
)

func TestFindTakesBothFamilies(t *testing.T) {
	four := client("10.99.0.1:40000", 1)
	mapped := client("10.99.0.1:40001", 2)
	mapped.Family = IPv6
	k := &script{dump: func() []netlink.Message { return replies(four, mapped) }}
	found, err := k.conn(t).Find(t.Context(), Filter{Peers: mustPrefixes("10.99.0.1/32")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Socket{four, mapped}, found, compareAddrs); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	for _, r := range k.requests {
		if r.Header.Type != 18 || r.Header.Flags != netlink.Request|netlink.Dump {
			t.Errorf("request of type %d, flags %v", r.Header.Type, r.Header.Flags)
		}
	}
}

// A kernel that does not filter does not make strangers look like matches.
func TestFindLooksAtEachSocketItself(t *testing.T) {
	want := client("10.99.0.1:40000", 1)
	stranger := client("10.99.0.3:40000", 2)
	otherPort := client("10.99.0.1:40001", 3)
	otherPort.Local = want.Remote
	orphan := client("10.99.0.1:40002", 4)
	orphan.State = FinWait1
	k := &script{dump: func() []netlink.Message { return replies(stranger, want, otherPort, orphan) }}
	found, err := k.conn(t).Find(t.Context(), Filter{
		Peers: mustPrefixes("10.99.0.1/32"), LocalPorts: []PortRange{Port(5432)}, States: Killable,
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Socket{want}, found, compareAddrs); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

func TestFindErrors(t *testing.T) {
	done := func(errno syscall.Errno) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.Done},
			Data:   binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))),
		}
	}
	failed := func(errno syscall.Errno) netlink.Message { return errorMessage(netlink.Message{}, errno) }
	strange := client("10.99.0.1:40000", 1)
	strange.Family = 1
	tests := []struct {
		name   string
		answer []netlink.Message
		want   error
	}{
		{"no tcp_diag, at the end of the dump", []netlink.Message{done(syscall.ENOENT)}, ErrNotSupported},
		{"no inet_diag", []netlink.Message{failed(syscall.ENOENT)}, ErrNotSupported},
		{"filter too long for the kernel", []netlink.Message{failed(syscall.EINVAL)}, syscall.EINVAL},
		{"not permitted", []netlink.Message{failed(syscall.EPERM)}, ErrNotPermitted},
		{"breaks off after a socket", append(replies(client("10.99.0.1:1", 1)), done(syscall.ENOBUFS)), syscall.ENOBUFS},
		{"too short", []netlink.Message{{Data: []byte{2}}}, ErrMalformed},
		{"another family", replies(strange), ErrMalformed},
		{"another type", []netlink.Message{{Header: netlink.Header{Type: 99}}}, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &script{dump: func() []netlink.Message { return tt.answer }}
			found, err := k.conn(t).Find(t.Context(), Filter{})
			if !errors.Is(err, tt.want) || found != nil {
				t.Errorf("found %v, error %v; want none and %v", found, err, tt.want)
			}
			var op *OpError
			if !errors.As(err, &op) || op.Op != "dump" {
				t.Errorf("error %v: want an OpError of a dump", err)
			}
		})
	}
}

// The answer to an earlier question is none to this one.
func TestFindRefusesStaleAnswers(t *testing.T) {
	c := newConn(&lane{nl: scriptedStale(t)})
	if found, err := c.Find(t.Context(), Filter{}); !errors.Is(err, ErrMalformed) || found != nil {
		t.Errorf("found %v, error %v; want ErrMalformed", found, err)
	}
}

func TestContextEndsBeforeTheKernelIsAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := new(script)
	c := k.conn(t)
	if _, err := c.Find(ctx, Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("find: %v", err)
	}
	outcomes, err := c.Destroy(ctx, []Socket{client("10.99.0.1:1", 1)})
	if !errors.Is(err, context.Canceled) || len(outcomes) != 1 || outcomes[0].Result != Skipped {
		t.Errorf("destroy: %v, %v; want skipped and canceled", outcomes, err)
	}
	if len(k.requests) != 0 {
		t.Errorf("%d requests", len(k.requests))
	}
}

func many(n int) []Socket {
	sockets := make([]Socket, n)
	for i := range sockets {
		sockets[i] = client(fmt.Sprintf("10.99.0.1:%d", 10000+i), uint64(i+1))
	}
	return sockets
}

func TestDestroyInBatches(t *testing.T) {
	for _, n := range []int{0, 1, batchSize - 1, batchSize, batchSize + 1, 3*batchSize + 5} {
		k := new(script)
		sockets := many(n)
		outcomes, err := k.conn(t).Destroy(t.Context(), sockets)
		if err != nil {
			t.Fatal(err)
		}
		if len(outcomes) != n || len(k.destroys()) != n {
			t.Fatalf("%d outcomes, %d kills; want %d", len(outcomes), len(k.destroys()), n)
		}
		batches := (n + batchSize - 1) / batchSize
		proof := min(n, 1) // one empty dump tells that the kernel knows TCP
		if k.sends != batches+proof {
			t.Errorf("%d sockets: %d system calls, want %d", n, k.sends, batches+proof)
		}
		asked := 0
		for i, r := range k.destroys() {
			if outcomes[i] != (Outcome{Result: Destroyed}) {
				t.Errorf("socket %d: %v", i, outcomes[i])
			}
			if r.Header.Type != 21 || r.Header.Flags&netlink.Dump != 0 {
				t.Errorf("kill of type %d, flags %v", r.Header.Type, r.Header.Flags)
			}
			if cookie := binary.NativeEndian.Uint64(r.Data[requestLen-8:]); cookie != sockets[i].Cookie {
				t.Errorf("kill %d with cookie %d", i, cookie)
			}
			if r.Header.Flags&netlink.Acknowledge != 0 {
				asked++
			}
		}
		if asked != batches {
			t.Errorf("%d sockets: %d answers asked for, want %d", n, asked, batches)
		}
	}
}

func TestDestroyTellsOutcomesApart(t *testing.T) {
	answers := []syscall.Errno{0, syscall.ENOENT, syscall.EPERM, syscall.EOPNOTSUPP, syscall.EINVAL, 0, syscall.ENOENT}
	want := []Result{Destroyed, Gone, NotPermitted, NotSupported, Failed, Destroyed, Gone}
	for last := range answers {
		t.Run(answers[last].Error(), func(t *testing.T) {
			// Each answer stands once at the end, where success is answered, too.
			at := func(n int) int { return (n + last + 1) % len(answers) }
			k := &script{destroy: func(n int, _ []byte) syscall.Errno { return answers[at(n)] }}
			outcomes, err := k.conn(t).Destroy(t.Context(), many(len(answers)))
			if err != nil {
				t.Fatal(err)
			}
			for n, o := range outcomes {
				if o.Result != want[at(n)] {
					t.Errorf("answer %v: %v, want %v", answers[at(n)], o.Result, want[at(n)])
				}
				fine := o.Result == Destroyed || o.Result == Gone
				if fine != (o.Err == nil) || !fine && !errors.Is(o.Err, answers[at(n)]) {
					t.Errorf("answer %v: error %v", answers[at(n)], o.Err)
				}
			}
			if !errors.Is(outcomes[(2-last-1+len(answers))%len(answers)].Err, ErrNotPermitted) {
				t.Error("EPERM is not ErrNotPermitted")
			}
			if !errors.Is(outcomes[(3-last-1+len(answers))%len(answers)].Err, ErrNotSupported) {
				t.Error("EOPNOTSUPP is not ErrNotSupported")
			}
		})
	}
}

func TestDestroyRefuses(t *testing.T) {
	change := func(f func(*Socket)) Socket {
		s := client("10.99.0.1:40000", 7)
		f(&s)
		return s
	}
	var refused []Socket
	for s := State(0); s < 40; s++ {
		if s != Established && s != CloseWait {
			refused = append(refused, change(func(o *Socket) { o.State = s }))
		}
	}
	refused = append(refused,
		change(func(s *Socket) { s.Cookie = 0 }),
		change(func(s *Socket) { s.Cookie = noCookie }),
		change(func(s *Socket) { s.Family = 1 }),
		change(func(s *Socket) { s.Remote = many(1)[0].Remote; s.Local = Socket{}.Local }),
		change(func(s *Socket) { s.Family = IPv6; s.Local = Socket{}.Local }),
		Socket{},
	)
	good := client("10.99.0.1:40000", 8)
	k := new(script)
	outcomes, err := k.conn(t).Destroy(t.Context(), append(refused, good))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range refused {
		if outcomes[i].Result != Refused || !errors.Is(outcomes[i].Err, ErrRefused) {
			t.Errorf("%+v: %v", s, outcomes[i])
		}
	}
	if outcomes[len(refused)].Result != Destroyed || len(k.destroys()) != 1 {
		t.Errorf("good socket: %v, %d kills; want destroyed by the only one", outcomes[len(refused)], len(k.destroys()))
	}
}

// Without tcp_diag a kill is answered ENOENT: that is not "gone".
func TestDestroyWithoutTCPDiag(t *testing.T) {
	k := &script{
		dump: func() []netlink.Message {
			return []netlink.Message{errorMessage(netlink.Message{}, syscall.ENOENT)}
		},
		destroy: func(int, []byte) syscall.Errno { return syscall.ENOENT },
	}
	outcomes, err := k.conn(t).Destroy(t.Context(), many(2))
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("error %v, want ErrNotSupported", err)
	}
	for _, o := range outcomes {
		if o.Result != Skipped {
			t.Errorf("outcome %v, want skipped", o)
		}
	}
	if len(k.destroys()) != 0 {
		t.Errorf("%d kills", len(k.destroys()))
	}
}

// When an answer is lost, nobody is called destroyed, and the connection is not
// used again: what comes next could be the lost answer.
func TestDestroyWithLostAnswer(t *testing.T) {
	k := &script{destroy: func(n int, _ []byte) syscall.Errno {
		if n == 1 {
			return syscall.EPERM
		}
		return 0
	}}
	serve := func(requests []netlink.Message) ([]netlink.Message, error) {
		answers, err := k.serve(requests)
		if requests == nil && k.kills > 0 && len(k.queue) == 0 {
			return nil, syscall.ENOBUFS // in the place of the last answer
		}
		return answers, err
	}
	c := newConn(&lane{nl: scripted(t, serve)})
	outcomes, err := c.Destroy(t.Context(), many(batchSize+1))
	if !errors.Is(err, syscall.ENOBUFS) {
		t.Fatalf("error %v, want ENOBUFS", err)
	}
	for i, o := range outcomes {
		want := Failed
		switch i {
		case 1:
			want = NotPermitted
		case batchSize:
			want = Skipped
		}
		if o.Result != want {
			t.Errorf("socket %d: %v, want %v", i, o, want)
		}
	}
	if _, err := c.Find(t.Context(), Filter{}); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("find afterwards: %v, want ErrBroken because of ENOBUFS", err)
	}
	if _, err := c.Destroy(t.Context(), many(1)); !errors.Is(err, ErrBroken) {
		t.Errorf("destroy afterwards: %v, want ErrBroken", err)
	}
}

func TestDestroyRefusesStrangeAnswers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*netlink.Message)
	}{
		{"number before the batch", func(m *netlink.Message) { m.Header.Sequence -= 9 }},
		{"number behind the batch", func(m *netlink.Message) { m.Header.Sequence++ }},
		{"no acknowledgement", func(m *netlink.Message) { m.Header.Type = typeDump }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := new(script)
			c := newConn(&lane{nl: scripted(t, func(requests []netlink.Message) ([]netlink.Message, error) {
				answers, err := k.serve(requests)
				if requests == nil && k.kills > 0 {
					tt.change(&answers[0])
				}
				return answers, err
			})})
			outcomes, err := c.Destroy(t.Context(), many(3))
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
			for _, o := range outcomes {
				if o.Result != Failed {
					t.Errorf("outcome %v, want failed", o)
				}
			}
		})
	}
}

// Each job is done once; after a failure nobody begins another.
func TestLanesShareJobs(t *testing.T) {
	for _, lanes := range []int{1, 2, 5} {
		c := newConn()
		for range lanes {
			c.lanes = append(c.lanes, new(lane))
		}
		for _, jobs := range []int{0, 1, 2, 100} {
			done := make([]atomic.Int64, jobs)
			busy := make(map[*lane]*atomic.Int64)
			for _, l := range c.lanes {
				busy[l] = new(atomic.Int64)
			}
			err := c.sharedLocked(jobs, func(l *lane, job int) error {
				if busy[l].Add(1) != 1 {
					t.Error("two jobs on one lane")
				}
				done[job].Add(1)
				busy[l].Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for job := range done {
				if n := done[job].Load(); n != 1 {
					t.Errorf("%d lanes: job %d done %d times", lanes, job, n)
				}
			}
		}
		var begun atomic.Int64
		boom := errors.New("boom")
		err := c.sharedLocked(1000, func(_ *lane, job int) error {
			begun.Add(1)
			return boom
		})
		if n := begun.Load(); !errors.Is(err, boom) || n < 1 || n > int64(lanes) {
			t.Errorf("%d lanes: %d jobs begun, error %v; want at most one each and boom", lanes, n, err)
		}
	}
}
