// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// betterThan are the sources above one.
func betterThan(s Source) (better []Source) {
	for b := Fentry; b < s; b++ {
		better = append(better, b)
	}
	return better
}

// needSource skips where the kernel cannot do it, but never in our own virtual
// machine, whose kernel can.
func needSource(t *testing.T, w *Watcher, want Source) {
	t.Helper()
	if w.Source() == want {
		return
	}
	if vm.Inside() {
		t.Fatalf("source %v, want %v: %+v", w.Source(), want, w.Missing())
	}
	t.Skipf("this kernel does not do %v: see TestInVirtualMachine", want)
}

// Fentry and kprobe tell of a carrier by themselves, inside the throttle too; of a
// call that changes nothing, of another namespace and of a device that is set down
// they tell nothing.
func TestBPFSources(t *testing.T) {
	for _, source := range []Source{Fentry, Kprobe} {
		t.Run(source.String(), func(t *testing.T) {
			n, elsewhere := mustNode(t), mustNode(t)
			n.watch(t, Config{BPF: true, Without: betterThan(source)})
			needSource(t, n.w, source)
			quiet, t0 := n.mustTap(t, "t1"), n.mustTap(t, "t0")
			foreign := elsewhere.mustTap(t, "t7")
			n.ip(t, "link set t0 up", "link set t1 up")
			elsewhere.ip(t, "link set t7 up")
			n.mustEvent(t, "t0", AdminUp, 0)
			n.mustEvent(t, "t1", AdminUp, 0)

			since := n.count()
			quiet.carrier(t, false) // begins the throttle's second
			n.mustEvent(t, "t1", CarrierLost, since)
			at := t0.carrier(t, false)
			e := n.mustEvent(t, "t0", CarrierLost, since)
			if e.Source != source || e.Latency < 0 || int64(e.At) < at {
				t.Errorf("%+v: expected the kernel's time after %d by %v", e, at, source)
			}
			t.Logf("FIGURE %v throttled %.3f ms", source, time.Duration(e.delivered-at).Seconds()*1000)

			t0.carrier(t, false)
			foreign.carrier(t, false)
			quiet.carrier(t, true)
			n.mustEvent(t, "t1", CarrierBack, since)
			if got := n.countOf("t0", CarrierLost); got != 1 {
				t.Errorf("told of a call that changes nothing: %d losses", got)
			}
			if got := n.countOf("t7", CarrierLost); got != 0 {
				t.Error("told of another namespace")
			}
			n.ip(t, "link set t1 down")
			n.mustEvent(t, "t1", AdminDown, since)
			if got := n.countOf("t1", CarrierLost); got != 1 {
				t.Errorf("a device that is set down: %d losses, want the one before", got)
			}
		})
	}
}

// Without the better sources the loss inside the throttle comes when rtnetlink
// tells it, in the same machine.
func TestBPFSourcesAgainstRtnetlink(t *testing.T) {
	if !vm.Inside() {
		t.Skip("only beside the figures of the virtual machine")
	}
	for _, source := range []Source{Counter, Rtnetlink} {
		n := mustNode(t)
		n.watch(t, Config{All: true, Without: betterThan(source)})
		quiet, t0 := n.mustTap(t, "t1"), n.mustTap(t, "t0")
		n.ip(t, "link set t0 up", "link set t1 up")
		n.mustEvent(t, "t0", AdminUp, 0)
		n.mustEvent(t, "t1", AdminUp, 0)
		since := n.count()
		quiet.carrier(t, false)
		n.mustEvent(t, "t1", CarrierLost, since)
		at := t0.carrier(t, false)
		e := n.mustEvent(t, "t0", CarrierLost, since)
		t.Logf("FIGURE %v throttled %.3f ms", source, time.Duration(e.delivered-at).Seconds()*1000)
	}
}

// CAP_BPF and CAP_PERFMON are all that it takes, and without either the reason
// names it.
func TestBPFCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name string
		caps uint32
		want string // in the reason; empty: it works
	}{
		{"both", 1<<(unix.CAP_BPF-32) | 1<<(unix.CAP_PERFMON-32), ""},
		{"no CAP_BPF", 1 << (unix.CAP_PERFMON - 32), "CAP_BPF"},
		{"no CAP_PERFMON", 1 << (unix.CAP_BPF - 32), "CAP_PERFMON"},
		{"none", 0, "CAP_BPF and CAP_PERFMON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agenttest.NeedRoot(t)
			s, missing := openWith(t, tt.caps)
			if s != nil {
				defer s.close()
			}
			if tt.want != "" {
				if s != nil || len(missing) != 2 || !strings.Contains(missing[0].Err.Error(), tt.want) || !strings.Contains(missing[0].Hint, "Capabilities") {
					t.Errorf("source %v, missing %+v: expected %s in the reason", s, missing, tt.want)
				}
				return
			}
			if s == nil && vm.Inside() {
				t.Errorf("no source: %+v", missing)
			}
		})
	}
}

// openWith opens the source on a thread that has only the capabilities, of those
// above 31, and ends with it.
func openWith(t *testing.T, high uint32) (s carrierSource, missing []Missing) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{1: {Effective: high, Permitted: high}}
		err := unix.Capset(&header, &data[0])
		if err == nil {
			s, missing = openBPF(slog.New(slog.DiscardHandler), nil)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, missing
}
