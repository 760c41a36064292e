// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// CAP_BPF and CAP_PERFMON are all that it takes, and without either the reason
// names it, whatever else is there.
func TestBPFCapabilities(t *testing.T) {
	agenttest.NeedRoot(t)
	setParanoid(t, "2")
	both := agenttest.CapabilitySet(unix.CAP_BPF, unix.CAP_PERFMON)
	rest := agenttest.AllCapabilities &^ (both | agenttest.CapabilitySet(unix.CAP_SYS_ADMIN)) // which has both in it
	for _, tt := range []struct {
		name string
		caps agenttest.Capabilities
		want string // in the reason; empty: it works
	}{
		{"both", both, ""},
		{"no CAP_BPF", rest | agenttest.CapabilitySet(unix.CAP_PERFMON), "missing CAP_BPF"},
		{"no CAP_PERFMON", rest | agenttest.CapabilitySet(unix.CAP_BPF), "missing CAP_PERFMON"},
		{"neither", rest, "missing CAP_BPF and CAP_PERFMON"},
		{"none at all", 0, "missing CAP_BPF and CAP_PERFMON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, source := range []Source{Fentry, Kprobe} {
				s, missing := openWith(t, tt.caps, betterThan(source))
				if tt.want == "" {
					mustBeOpen(t, s, missing, source)
				} else if s != nil || len(missing) == 0 || missing[0].Source != source || !lacks(missing[0], tt.want) {
					t.Errorf("source %v, missing %+v: expected %q", s, missing, tt.want)
				}
			}
		})
	}
}

// lacks reports whether the reason names exactly these capabilities, and what to do.
func lacks(m Missing, want string) bool {
	err, ok := errors.AsType[capabilityError](m.Err)
	return ok && err.Error() == want && strings.Contains(m.Hint, "Capabilities")
}

// Debian's own setting keeps kprobes for CAP_SYS_ADMIN; the reason says so.
func TestBPFParanoid(t *testing.T) {
	if !vm.Inside() {
		t.Skip("a setting of the machine, and of Debian's kernels: see TestInVirtualMachine")
	}
	setParanoid(t, "3")
	both := agenttest.CapabilitySet(unix.CAP_BPF, unix.CAP_PERFMON)
	s, missing := openWith(t, both, nil)
	mustBeOpen(t, s, missing, Fentry)
	s, missing = openWith(t, both, betterThan(Kprobe))
	if s != nil || len(missing) != 1 || !errors.Is(missing[0].Err, errParanoid) {
		t.Errorf("source %v, missing %+v: expected %v", s, missing, errParanoid)
	}
	s, missing = openWith(t, both|agenttest.CapabilitySet(unix.CAP_SYS_ADMIN), betterThan(Kprobe))
	mustBeOpen(t, s, missing, Kprobe)
}

// setParanoid sets it in our own virtual machine.
func setParanoid(t *testing.T, level string) {
	t.Helper()
	if !vm.Inside() {
		return
	}
	before, err := os.ReadFile(paranoidFile)
	if err == nil {
		err = os.WriteFile(paranoidFile, []byte(level), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(paranoidFile, before, 0) })
}

// mustBeOpen wants the source, or another reason than rights where the kernel is not
// ours to choose.
func mustBeOpen(t *testing.T, s carrierSource, missing []Missing, want Source) {
	t.Helper()
	if s != nil {
		defer s.close()
	}
	if vm.Inside() && (s == nil || s.kind() != want) {
		t.Errorf("no %v: %+v", want, missing)
	}
	for _, m := range missing {
		if _, lacks := errors.AsType[capabilityError](m.Err); lacks {
			t.Errorf("%v: %v", m.Source, m.Err)
		}
	}
}

// The kernel itself asks for both.
func TestBPFKernelAsksForBoth(t *testing.T) {
	agenttest.NeedRoot(t)
	for _, capability := range []int{unix.CAP_BPF, unix.CAP_PERFMON} {
		err := onThreadWith(agenttest.CapabilitySet(capability), func() error {
			l := &loader{used: true}
			defer l.forget()
			c, err := l.load(linkhintProgKprobeOff, linkhintProgKprobeOn)
			if err == nil {
				c.Close()
			}
			return err
		})
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("with nothing but capability %d: %v, want EPERM", capability, err)
		}
	}
}

// openWith opens a source on a thread that has only the capabilities.
func openWith(t *testing.T, caps agenttest.Capabilities, without []Source) (s carrierSource, missing []Missing) {
	t.Helper()
	err := onThreadWith(caps, func() error {
		s, missing = openBPF(slog.New(slog.DiscardHandler), without)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, missing
}

// onThreadWith runs f on a thread that has only the capabilities, and ends with it.
func onThreadWith(caps agenttest.Capabilities, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := caps.KeepOnly()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
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
