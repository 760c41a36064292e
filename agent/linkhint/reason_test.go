// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func TestMissingCapabilities(t *testing.T) {
	const bpf, perfmon, admin, net = 1 << unix.CAP_BPF, 1 << unix.CAP_PERFMON, 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_NET_ADMIN
	for _, tt := range []struct {
		effective uint64
		want      string
	}{
		{0, "missing CAP_BPF and CAP_PERFMON"},
		{net, "missing CAP_BPF and CAP_PERFMON"},
		{perfmon | net, "missing CAP_BPF"},
		{bpf, "missing CAP_PERFMON"},
		{bpf | perfmon, "missing "},
		{admin, "missing "},
	} {
		if got := capabilityError(missingCapabilities(tt.effective)).Error(); got != tt.want {
			t.Errorf("%x: %q, want %q", tt.effective, got, tt.want)
		}
	}
}

// Each reason leads to what can be done about it, however deep it is wrapped.
func TestHintFor(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{capabilityError{"CAP_PERFMON"}, "give the process CAP_PERFMON ("},
		{errors.Join(capabilityError{"CAP_BPF", "CAP_PERFMON"}, errNoKprobes), "give the process CAP_BPF and CAP_PERFMON ("},
		{errParanoid, "set kernel.perf_event_paranoid to 2"},
		{errNoKprobes, "CONFIG_KPROBE_EVENTS"},
		{fmt.Errorf("%w: %w", errNoTypes, ebpf.ErrNotSupported), "CONFIG_DEBUG_INFO_BTF"},
		{fmt.Errorf("%w: %w", errNoTypes, unix.EACCES), "be readable"},
		{unix.EPERM, "lockdown"},
		{unix.EACCES, "seccomp"},
		{ebpf.ErrNotSupported, "newer kernel"},
		{btf.ErrNotFound, "newer kernel"},
		{unix.ENOSYS, "CONFIG_BPF_SYSCALL"},
		{unix.EINVAL, "newer kernel"},
		{errors.New("something else"), "next best source"},
	} {
		wrapped := fmt.Errorf("load: %w", fmt.Errorf("program: %w", tt.err))
		if got := hintFor(wrapped); !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q does not say %q", tt.err, got, tt.want)
		}
	}
}

// Sources that somebody has switched off are not missing.
func TestOpenBPFPassesOver(t *testing.T) {
	s, missing := openBPF(nil, []Source{Fentry, Kprobe})
	if s != nil || len(missing) != 0 {
		t.Errorf("source %v, missing %v; want neither", s, missing)
	}
}
