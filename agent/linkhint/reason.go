// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// What the kernel may lack.
var (
	errNoTypes   = errors.New("the kernel's type information (BTF) is missing")
	errNoKprobes = errors.New("the kernel is built without kprobes")
	errParanoid  = errors.New("kernel.perf_event_paranoid is above 2: only CAP_SYS_ADMIN may open kprobes")
)

// capabilityError names the capabilities that the thread does not have.
type capabilityError []string

func (e capabilityError) Error() string { return "missing " + strings.Join(e, " and ") }

// checkCapabilities returns a capabilityError unless the calling thread has all
// that loading and attaching need; CAP_SYS_ADMIN has both in it.
func checkCapabilities() error {
	effective, err := effectiveCapabilities()
	if err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if missing := missingCapabilities(effective); len(missing) > 0 {
		return capabilityError(missing)
	}
	return nil
}

// missingCapabilities looks at a set of capabilities, one bit each.
func missingCapabilities(effective uint64) (names []string) {
	has := func(capability int) bool { return effective>>capability&1 != 0 }
	if has(unix.CAP_SYS_ADMIN) {
		return nil
	}
	if !has(unix.CAP_BPF) {
		names = append(names, "CAP_BPF")
	}
	if !has(unix.CAP_PERFMON) {
		names = append(names, "CAP_PERFMON")
	}
	return names
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// nothingMore is for what shows only when it is tried.
func nothingMore() error { return nil }

// kprobeType is there when perf_event_open(2) knows kprobes (Linux 4.17).
const kprobeType = "/sys/bus/event_source/devices/kprobe/type"

// haveKprobes spares the library its second way, which needs a mounted tracefs and
// complains of that instead of the kernel.
func haveKprobes() error {
	if _, err := os.Stat(kprobeType); errors.Is(err, fs.ErrNotExist) {
		return errNoKprobes
	} else if err != nil {
		return fmt.Errorf("look for kprobes: %w", err)
	}
	return nil
}

// paranoidFile is a number. Debian and its descendants have made 3 and more of it: there
// perf_event_open(2) is for CAP_SYS_ADMIN, and CAP_PERFMON is not enough.
const paranoidFile = "/proc/sys/kernel/perf_event_paranoid"

// explainKprobe names the setting that refuses a kprobe to a process with the right.
func explainKprobe(err error) error {
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	text, readErr := os.ReadFile(paranoidFile)
	level, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if readErr == nil && parseErr == nil && level > 2 {
		return errParanoid
	}
	return err
}

// hintFor says what an operator can do about a source that does not work.
func hintFor(err error) string {
	var missing capabilityError
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case errors.As(err, &missing):
		return "give the process " + strings.Join(missing, " and ") + " (AmbientCapabilities= of systemd, setpriv --ambient-caps)"
	case is(errNoTypes):
		return "use a kernel with CONFIG_DEBUG_INFO_BTF, and let /sys/kernel/btf/vmlinux be readable"
	case is(errNoKprobes):
		return "use a kernel with CONFIG_KPROBE_EVENTS, and let /sys be mounted"
	case is(errParanoid):
		return "set kernel.perf_event_paranoid to 2 (sysctl), or give the process CAP_SYS_ADMIN; fentry needs neither"
	case is(unix.EPERM, unix.EACCES):
		return "the capabilities are there: look for kernel lockdown, a security module, a seccomp filter or a user namespace" +
			" that forbids it; before Linux 5.11 RLIMIT_MEMLOCK may be too low"
	case is(ebpf.ErrNotSupported, btf.ErrNotFound, unix.ENOSYS, unix.EINVAL, unix.ENOENT):
		return "use a newer kernel, with CONFIG_BPF_SYSCALL and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"
	}
	return "the next best source is used; nothing has to be done"
}
