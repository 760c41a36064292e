// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
	"github.com/pgconmgr/pgconmgr/conmgr"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// kernel is what the doctor asks the kernel. Tests put errors in the place of
// abilities that a kernel cannot be made to lose.
type kernel struct {
	destroy      func(context.Context) error
	links        func(linkhint.Config) (linkSource, error)
	pidfd        func() (direct bool, err error)
	inotify      func(dir string) error
	timers       func() error
	synchronised func() (bool, error)
	descriptors  func() (uint64, error)
}

// linkSource is a [linkhint.Watcher] that is asked and not run.
type linkSource interface {
	Source() linkhint.Source
	Missing() []linkhint.Missing
	Close() error
}

// thisKernel asks as the daemons do.
func thisKernel() kernel {
	return kernel{
		destroy: watchdog.ProveSockets,
		links: func(c linkhint.Config) (linkSource, error) {
			w, err := linkhint.New(c)
			if err != nil {
				return nil, err // not a nil *Watcher in an interface
			}
			return w, nil
		},
		pidfd: watchdog.ProvePidfd, inotify: watchdog.ProveDirectory,
		timers: proveTimers, synchronised: wallClock, descriptors: conmgr.RaiseDescriptors,
	}
}

// proveTimers opens the loop that both daemons run on, and closes it.
func proveTimers() error {
	loop, err := peer.NewLoop(nil)
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return loop.Run(ended)
}

// wallClock asks whether somebody keeps the time of day right (adjtimex(2), which
// needs no right to look).
func wallClock() (synchronised bool, err error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

// checkNamespace checks what belongs to a network namespace. It is called in it.
func (d *doctor) checkNamespace(ctx context.Context) {
	d.checkDestroy(ctx)
	d.checkLinks()
}

func (d *doctor) checkDestroy(ctx context.Context) {
	const check = "sock destroy"
	err := d.kernel.destroy(ctx)
	advice := watchdog.SocketsAdvice(err)
	switch {
	case err == nil:
		d.add(check, works, "destroyed a connection of its own on loopback", "")
		return
	case errors.Is(err, sockdiag.ErrNotPermitted):
		advice = "AmbientCapabilities=CAP_NET_ADMIN in the unit of pgwatchdog, or start it by setpriv --inh-caps +net_admin --ambient-caps +net_admin"
	case errors.Is(err, sockdiag.ErrNotSupported):
		advice += "=y; modprobe tcp_diag where that is a module"
	case advice == "":
		advice = "let this host have lo up and a free port on 127.0.0.1"
	}
	d.add(check, missing, err.Error()+"; sessions of dead clients are terminated all the same", advice)
}

// checkLinks tries every source of link events, also those behind the best one that
// works: each is tried with the better ones passed over.
func (d *doctor) checkLinks() {
	sources := []linkhint.Source{linkhint.Fentry, linkhint.Kprobe, linkhint.Counter}
	tried := make([]linkTrial, len(sources))
	for i, source := range sources {
		trial, err := d.tryLink(source, sources[:i])
		if err != nil {
			d.noLinks(sources, err)
			return
		}
		tried[i] = trial
	}
	tried[0].orElse(&tried[1])
	tried[1].orElse(&tried[0])
	if counter := &tried[2]; d.options.netns != "" && counter.result == missing {
		// Only the network namespace was entered: /sys shows the devices of another.
		counter.result, counter.advice = skipped, "run agentctl inside, as by ip netns exec, which mounts its own /sys"
	}
	for i, source := range sources {
		d.add(linkCheck(source), tried[i].result, tried[i].detail, tried[i].advice)
	}
	d.add(linkCheck(linkhint.Rtnetlink), works, "tells of links and routes, of a lost carrier up to a second late", "")
}

// linkTrial is what became of one source.
type linkTrial struct {
	source         linkhint.Source
	result         result
	detail, advice string
}

func (d *doctor) tryLink(source linkhint.Source, without []linkhint.Source) (t linkTrial, err error) {
	w, err := d.kernel.links(linkhint.Config{BPF: true, Without: without})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	t = linkTrial{source: source, result: works, detail: linkDetails[source]}
	if w.Source() == source {
		return t, nil
	}
	t.result, t.detail = missing, "not used, and no reason is told"
	for _, m := range w.Missing() {
		if m.Source == source {
			t.detail, t.advice = m.Err.Error(), m.Hint
		}
	}
	return t, nil
}

var linkDetails = map[linkhint.Source]string{
	linkhint.Fentry:  "BPF on netif_carrier_off: a lost carrier at once, with the kernel's time",
	linkhint.Kprobe:  "BPF on netif_carrier_off: a lost carrier at once, with the kernel's time",
	linkhint.Counter: "carrier_changes of sysfs, looked at every 5 ms",
}

// orElse makes a missing source a warning when another does the same.
func (t *linkTrial) orElse(other *linkTrial) {
	if t.result == missing && other.result == works {
		t.result, t.advice = warning, fmt.Sprintf("nothing: %v does the same", other.source)
	}
}

// noLinks: without rtnetlink no other source is of use.
func (d *doctor) noLinks(sources []linkhint.Source, err error) {
	for _, source := range sources {
		d.add(linkCheck(source), skipped, "needs rtnetlink", "")
	}
	d.add(linkCheck(linkhint.Rtnetlink), missing, err.Error(), "allow AF_NETLINK sockets (RestrictAddressFamilies= of systemd, seccomp of the container)")
}

// linkCheck is the name of a source's check.
func linkCheck(s linkhint.Source) string {
	if s == linkhint.Counter {
		return "carrier counter"
	}
	return s.String()
}

// checkKernel checks what is the same in all network namespaces.
func (d *doctor) checkKernel() {
	d.checkPidfd()
	d.checkInotify()
	if err := d.kernel.timers(); err != nil {
		d.add("clock", missing, err.Error(), "Linux 5.3 or later, and a seccomp filter that allows epoll, eventfd and timerfd")
	} else {
		d.add("clock", works, "timerfd on CLOCK_BOOTTIME", "")
	}
	const wall = "verdicts do not use it, but times in logs and events.jsonl do"
	switch synchronised, err := d.kernel.synchronised(); {
	case err != nil:
		d.add("wall clock", warning, "cannot tell whether it is synchronised: "+err.Error()+"; "+wall, "")
	case !synchronised:
		d.add("wall clock", warning, "not synchronised; "+wall, "run chrony or systemd-timesyncd")
	default:
		d.add("wall clock", works, "synchronised", "")
	}
}

func (d *doctor) checkPidfd() {
	switch direct, err := d.kernel.pidfd(); {
	case err != nil:
		d.add("pidfd", missing, err.Error()+"; the death of the postmaster is seen by checks only", "Linux 5.3 or later, and a seccomp filter that allows pidfd_open")
	case direct:
		d.add("pidfd", works, "of the other end of a Unix socket (SO_PEERPIDFD)", "")
	default:
		d.add("pidfd", works, "by pid (SO_PEERCRED, pidfd_open), as SO_PEERPIDFD needs Linux 6.5", "")
	}
}

func (d *doctor) checkInotify() {
	err := d.kernel.inotify(os.TempDir())
	var advice string
	switch {
	case err == nil:
		d.add("inotify", works, "watched "+os.TempDir(), "")
		return
	case errors.Is(err, unix.EMFILE):
		advice = "sysctl fs.inotify.max_user_instances=1024, as all that this user may have are in use"
	case errors.Is(err, unix.ENOSPC):
		advice = "sysctl fs.inotify.max_user_watches=65536, as all that this user may have are in use"
	case errors.Is(err, unix.ENOSYS):
		advice = "a kernel with CONFIG_INOTIFY_USER"
	default:
		advice = "let " + os.TempDir() + " be a directory that this user may read"
	}
	d.add("inotify", missing, err.Error()+"; a promotion is seen by checks only", advice)
}
