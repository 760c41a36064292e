// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
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
			for _, m := range missing { // another kernel may lack more, but no right
				if _, lacks := errors.AsType[capabilityError](m.Err); lacks {
					t.Errorf("%v: %v", m.Source, m.Err)
				}
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

// Each kind of device comes by the functions that the programs hang on. The programs
// are read without a Watcher: of some devices rtnetlink may tell it first.
func TestBPFDevices(t *testing.T) {
	if !vm.Inside() {
		t.Skip("this machine's kernel lacks some of the devices: see TestInVirtualMachine")
	}
	for _, source := range []Source{Fentry, Kprobe} {
		t.Run(source.String(), func(t *testing.T) {
			n := mustNode(t)
			s := mustSource(t, n, source)
			t0 := n.mustTap(t, "t0")
			n.ip(t, "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
				"link add d0 type dummy", "link set d0 up",
				"link add b0 type bond mode active-backup miimon 10", "link set t0 master b0", "link set t0 up", "link set b0 up",
				"link add link b0 name b0.5 type vlan id 5", "link set b0.5 up")
			for _, name := range []string{"v0", "v1", "d0", "t0", "b0", "b0.5"} {
				agenttest.Eventually(t, limit, name+" has a carrier", func() bool { return n.hasCarrier(name) })
			}
			for _, step := range []struct {
				cut    func()
				losers []string
			}{
				{func() { n.ip(t, "link set v1 down") }, []string{"v0"}},
				{func() { n.ip(t, "link set d0 carrier off") }, []string{"d0"}},
				{func() { t0.carrier(t, false) }, []string{"t0", "b0", "b0.5"}},
			} {
				step.cut()
				for _, name := range step.losers {
					awaitLoss(t, s, name)
				}
			}
		})
	}
}

// mustSource opens one BPF source in the namespace.
func mustSource(t *testing.T, n *node, want Source) (s carrierSource) {
	t.Helper()
	var missing []Missing
	err := n.host.Do(func() error {
		s, missing = openBPF(slog.New(slog.DiscardHandler), betterThan(want))
		return nil
	})
	if err != nil || s == nil || s.kind() != want {
		t.Fatalf("source %v, %v, missing %+v", s, err, missing)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

// awaitLoss reads events until that of the device comes.
func awaitLoss(t *testing.T, s carrierSource, name string) {
	t.Helper()
	end := time.After(limit)
	for {
		select {
		case e := <-s.events():
			if e.name == name && e.lost {
				return
			}
		case <-end:
			t.Fatalf("%v tells nothing of %s", s.kind(), name)
		}
	}
}

// hasCarrier asks sysfs.
func (n *node) hasCarrier(name string) bool {
	var text []byte
	err := n.host.Do(func() (err error) {
		text, err = os.ReadFile("/sys/class/net/" + name + "/carrier")
		return err
	})
	return err == nil && string(text) == "1\n"
}

// A kernel that loads the programs and then does not attach them is an error, and
// nothing stays open.
func TestBPFNotAttached(t *testing.T) {
	agenttest.NeedRoot(t)
	refused := errors.New("refused")
	l := &loader{}
	defer l.forget()
	s, err := l.open(rung{Kprobe, linkhintProgKprobeOff, linkhintProgKprobeOn, nothingMore,
		func(string, *ebpf.Program) (link.Link, error) { return nil, refused }})
	if s != nil || !errors.Is(err, refused) {
		t.Errorf("source %v, error %v: expected %v", s, err, refused)
	}
}
