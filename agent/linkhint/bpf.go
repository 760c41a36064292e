// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// rung is one way to attach the BPF programs.
type rung struct {
	source  Source
	off, on string // programs of bpf/linkhint.bpf.c
	// ready says why the kernel cannot do it, where that shows without trying.
	ready  func() error
	attach func(function string, p *ebpf.Program) (link.Link, error)
}

// rungs are the ladder, best first.
var rungs = []rung{
	{Fentry, linkhintProgFentryOff, linkhintProgFentryOn, nothingMore, attachFentry},
	{Kprobe, linkhintProgKprobeOff, linkhintProgKprobeOn, haveKprobes, attachKprobe},
}

// openBPF opens the best BPF source that works for the network namespace and with
// the rights of the calling thread, nil when none does, and says what is missing for
// the better ones. Requires Linux 5.8, BTF, CAP_BPF and CAP_PERFMON; nothing else,
// but for kprobes under Debian's setting (paranoidFile): they are opened by
// perf_event_open(2), without tracefs, and since Linux 5.11 RLIMIT_MEMLOCK does not
// count.
func openBPF(_ *slog.Logger, without []Source) (carrierSource, []Missing) {
	var missing []Missing
	l := &loader{}
	defer l.forget()
	for _, r := range rungs {
		if slices.Contains(without, r.source) {
			continue
		}
		s, err := l.open(r)
		if err == nil {
			return s, missing
		}
		missing = append(missing, Missing{Source: r.source, Err: err, Hint: hintFor(err)})
	}
	return nil, missing
}

// loader keeps what the rungs share while they are tried.
type loader struct {
	types *btf.Spec // of the running kernel; nil before they are needed
	used  bool
}

// forget gives back what loading took, mostly the kernel's types: the process would
// keep it for good, as it is most of what it has ever allocated when it starts.
func (l *loader) forget() {
	if l.used {
		l.types = nil
		runtime.GC() // unmaps the kernel's types, which are a cleanup of their owner
		debug.FreeOSMemory()
	}
}

// open loads and attaches the programs of a rung.
func (l *loader) open(r rung) (*bpfSource, error) {
	if err := errors.Join(checkCapabilities(), r.ready()); err != nil {
		return nil, err
	}
	l.used = true
	c, err := l.load(r.off, r.on)
	if err != nil {
		return nil, err
	}
	// The links hold the programs; programs hold the maps.
	defer c.Close()
	s := &bpfSource{source: r.source}
	if err := s.attach(r, c); err != nil {
		_ = s.release()
		return nil, err
	}
	s.start()
	return s, nil
}

// attach opens the ring buffer and attaches the programs; what it has opened before
// an error is released by the caller.
func (s *bpfSource) attach(r rung, c *ebpf.Collection) error {
	if err := s.openRing(c); err != nil {
		return err
	}
	for function, program := range map[string]string{"netif_carrier_off": r.off, "netif_carrier_on": r.on} {
		attached, err := r.attach(function, c.Programs[program])
		if err != nil {
			return fmt.Errorf("attach to %s: %w", function, err)
		}
		s.links = append(s.links, attached)
	}
	return nil
}

// load brings two programs and their maps into the kernel.
func (l *loader) load(programs ...string) (*ebpf.Collection, error) {
	spec, err := loadLinkhint()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	netns, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[linkhintVarOwnNetns].Set(netns); err != nil {
		return nil, err
	}
	if l.types == nil {
		if l.types, err = btf.LoadKernelSpec(); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoTypes, err)
		}
	}
	// With these the library does not read the types of all modules.
	options := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: l.types}}
	c, err := ebpf.NewCollectionWithOptions(spec, options)
	if errors.Is(err, unix.EPERM) {
		err = unix.EPERM // without the library's guess at the reason
	}
	if err != nil {
		return nil, fmt.Errorf("load BPF programs: %w", err)
	}
	return c, nil
}

// ownNamespace returns the inode of the calling thread's network namespace, which
// the kernel keeps in 32 bits.
func ownNamespace() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("find own network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

func attachFentry(_ string, p *ebpf.Program) (link.Link, error) {
	return link.AttachTracing(link.TracingOptions{Program: p}) // the program knows its function
}

func attachKprobe(function string, p *ebpf.Program) (link.Link, error) {
	l, err := link.Kprobe(function, p, nil)
	return l, explainKprobe(err)
}
