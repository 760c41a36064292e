// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// ladder is a kernel's sources of link events: those in it fail.
type ladder map[linkhint.Source]linkhint.Missing

func (l ladder) open(c linkhint.Config) (linkSource, error) {
	if m, ok := l[linkhint.Rtnetlink]; ok {
		return nil, m.Err
	}
	var w climbed
	for s := linkhint.Fentry; s < linkhint.Rtnetlink; s++ {
		if slices.Contains(c.Without, s) {
			continue
		}
		m, fails := l[s]
		if !fails {
			w.source = s
			return w, nil
		}
		w.missing = append(w.missing, m)
	}
	w.source = linkhint.Rtnetlink
	return w, nil
}

// climbed is what a watcher would say.
type climbed struct {
	source  linkhint.Source
	missing []linkhint.Missing
}

func (c climbed) Source() linkhint.Source     { return c.source }
func (c climbed) Missing() []linkhint.Missing { return c.missing }
func (c climbed) Close() error                { return nil }

// healthyKernel can do everything.
func healthyKernel() kernel {
	return kernel{
		destroy: func(context.Context) error { return nil },
		links:   ladder{}.open,
		pidfd:   func() (bool, error) { return true, nil },
		inotify: func(string) error { return nil },
		timers:  func() error { return nil },

		synchronised: func() (bool, error) { return true, nil },
		descriptors:  func() (uint64, error) { return 1024, nil },
	}
}

func fail(s linkhint.Source, err error, hint string) linkhint.Missing {
	return linkhint.Missing{Source: s, Err: err, Hint: hint}
}

// sickKernel lacks what it can.
func sickKernel() kernel {
	k := healthyKernel()
	k.destroy = func(context.Context) error { return sockdiag.ErrNotPermitted }
	k.links = ladder{
		linkhint.Fentry: fail(linkhint.Fentry, fmt.Errorf("load program: %w", unix.EPERM), "AmbientCapabilities=CAP_BPF CAP_PERFMON"),
		linkhint.Kprobe: fail(linkhint.Kprobe, fmt.Errorf("attach: %w", unix.ENOENT), "a kernel with CONFIG_KPROBES=y"),
	}.open
	k.pidfd = func() (bool, error) { return false, fmt.Errorf("pidfd_open 1: %w", unix.ENOSYS) }
	k.inotify = func(string) error { return fmt.Errorf("inotify_init: %w", unix.EMFILE) }
	k.timers = func() error { return fmt.Errorf("create timerfd on the boot-time clock: %w", unix.EINVAL) }
	k.synchronised = func() (bool, error) { return false, nil }
	k.descriptors = func() (uint64, error) { return 100, nil }
	return k
}

// sickInstance lets the agent do nothing but log in.
func sickInstance() *watchdog.Examination {
	return &watchdog.Examination{
		Version: "16.4 (Debian 16.4-1.pgdg120+1)", Major: 16, Role: "Wd", PostmasterErr: watchdog.ErrNotUnix,
		Settings: &watchdog.ServerSettings{MaxConnections: 200, Entries: []conf.Entry{
			{Name: "watchdog.on_timout", Value: "wait", File: "/data/postgresql.conf", Line: 12},
			{Name: "watchdog.on_hang", Value: "kill", File: "/data/postgresql.conf", Line: 13},
		}},
	}
}

func sickDoctor() *doctor {
	d := &doctor{kernel: sickKernel(), instance: sickInstance(), options: doctorOptions{keyFile: "/nowhere/keys", config: "/nowhere/pgwatchdog.conf", configGiven: true}}
	d.checkNamespace(context.Background())
	d.checkKernel()
	d.readConfig()
	d.checkFiles()
	d.checkInstance()
	e := newSession(0, "").env
	e.ask = answers(sickAgent())
	d.checkRunning(context.Background(), &e)
	return d
}

func TestDoctorGolden(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	d := sickDoctor()
	for _, columns := range []int{0, 40, 80, 200} {
		s := newSession(columns, "")
		if err := d.print(&s.env); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("doctor-%d.txt", columns)
		golden(t, name, s.out.String())
		checkWidth(t, name, s.out.String(), columns)
	}
	d.options.json = true
	s := newSession(0, "")
	if err := d.print(&s.env); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor.jsonl", s.out.String())
	for _, name := range jsonNames(t, s.out.String()) {
		if !strings.Contains(doctorUsage, name) {
			t.Errorf("help says nothing about %s", name)
		}
	}
	for _, f := range d.findings {
		if !strings.Contains(doctorUsage, f.Check) {
			t.Errorf("help says nothing about the check %s", f.Check)
		}
	}
	if err := d.verdict(); err == nil || err.Error() != "16 of 30 checks found something missing" {
		t.Errorf("verdict %v", err)
	}
}

// mustFindings runs "doctor --json" and returns its findings by name.
func mustFindings(t *testing.T, lines string) map[string]finding {
	t.Helper()
	all := make(map[string]finding)
	for line := range strings.Lines(lines) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all[f.Check] = f
	}
	return all
}

// expect is what a check should have found: texts are parts.
type expect struct {
	check          string
	result         result
	detail, advice string
}

func (want expect) in(t *testing.T, all map[string]finding) {
	t.Helper()
	f, ok := all[want.check]
	advice := ""
	if f.Advice != nil {
		advice = *f.Advice
	}
	if !ok || f.Result != want.result || !strings.Contains(f.Detail, want.detail) || !strings.Contains(advice, want.advice) || (advice == "") != (want.advice == "") {
		t.Errorf("%s: %s, %q, what to do: %q; want %+v", want.check, f.Result, f.Detail, advice, want)
	}
}

// Each ability that is taken away changes its line and no other one.
func TestDoctorKernel(t *testing.T) {
	t.Parallel()
	lacks := func(missing ...linkhint.Missing) func(*kernel) {
		l := make(ladder)
		for _, m := range missing {
			l[m.Source] = m
		}
		return func(k *kernel) { k.links = l.open }
	}
	fentry, kprobe := fail(linkhint.Fentry, unix.EPERM, "CAP_BPF"), fail(linkhint.Kprobe, unix.ENOENT, "CONFIG_KPROBES")
	counter, rtnetlink := fail(linkhint.Counter, unix.EACCES, "mount sysfs"), fail(linkhint.Rtnetlink, unix.EAFNOSUPPORT, "")
	for _, tt := range []struct {
		name string
		take func(*kernel)
		want []expect
	}{
		{"nothing", func(*kernel) {}, nil},
		{"right to destroy", func(k *kernel) { k.destroy = func(context.Context) error { return sockdiag.ErrNotPermitted } },
			[]expect{{"sock destroy", missing, "CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN"}}},
		{"destroy in the kernel", func(k *kernel) { k.destroy = func(context.Context) error { return sockdiag.ErrNotSupported } },
			[]expect{{"sock destroy", missing, "", "CONFIG_INET_DIAG_DESTROY=y; modprobe tcp_diag"}}},
		{"loopback", func(k *kernel) { k.destroy = func(context.Context) error { return unix.ENETUNREACH } },
			[]expect{{"sock destroy", missing, "network is unreachable", "lo up"}}},
		{"fentry", lacks(fentry), []expect{{"fentry", warning, "operation not permitted", "nothing: kprobe does the same"}}},
		{"kprobe", lacks(kprobe), []expect{{"kprobe", warning, "no such file", "nothing: fentry does the same"}}},
		{"BPF", lacks(fentry, kprobe), []expect{{"fentry", missing, "operation not permitted", "CAP_BPF"}, {"kprobe", missing, "no such file", "CONFIG_KPROBES"}}},
		{"counter", lacks(counter), []expect{{"carrier counter", missing, "permission denied", "mount sysfs"}}},
		{"rtnetlink", lacks(rtnetlink), []expect{
			{"rtnetlink", missing, "address family not supported", "AF_NETLINK"},
			{"fentry", skipped, "needs rtnetlink", ""}, {"kprobe", skipped, "needs rtnetlink", ""}, {"carrier counter", skipped, "needs rtnetlink", ""},
		}},
		{"SO_PEERPIDFD", func(k *kernel) { k.pidfd = func() (bool, error) { return false, nil } },
			[]expect{{"pidfd", works, "SO_PEERPIDFD needs Linux 6.5", ""}}},
		{"pidfd_open", func(k *kernel) { k.pidfd = func() (bool, error) { return false, unix.ENOSYS } },
			[]expect{{"pidfd", missing, "not implemented", "Linux 5.3"}}},
		{"inotify", func(k *kernel) { k.inotify = func(string) error { return unix.ENOSYS } },
			[]expect{{"inotify", missing, "not implemented", "CONFIG_INOTIFY_USER"}}},
		{"inotify watches", func(k *kernel) { k.inotify = func(string) error { return unix.ENOSPC } },
			[]expect{{"inotify", missing, "no space left", "fs.inotify.max_user_watches"}}},
		{"timers", func(k *kernel) { k.timers = func() error { return unix.EINVAL } },
			[]expect{{"clock", missing, "invalid argument", "Linux 5.3"}}},
		{"synchronised clock", func(k *kernel) { k.synchronised = func() (bool, error) { return false, nil } },
			[]expect{{"wall clock", warning, "not synchronised", "chrony"}}},
		{"adjtimex", func(k *kernel) { k.synchronised = func() (bool, error) { return false, unix.EPERM } },
			[]expect{{"wall clock", warning, "cannot tell", ""}}},
		{"descriptors", func(k *kernel) { k.descriptors = func() (uint64, error) { return 163, nil } },
			[]expect{{"descriptors", missing, "163 may be open here, 164 are needed for 100", "LimitNOFILE=164"}}},
		{"limit", func(k *kernel) { k.descriptors = func() (uint64, error) { return 0, unix.EPERM } },
			[]expect{{"descriptors", missing, "operation not permitted", "LimitNOFILE="}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSession(0, "")
			s.kernel = healthyKernel()
			tt.take(&s.kernel)
			exit := s.run(t.Context(), "doctor", "--json", "--config", mustConf(t, ""))
			all := mustFindings(t, s.out.String())
			lacking := false
			for _, want := range tt.want {
				want.in(t, all)
				lacking = lacking || want.result == missing
				delete(all, want.check)
			}
			if want := map[bool]int{true: 1}[lacking]; exit != want {
				t.Errorf("exit %d, want %d: %s", exit, want, s.errs)
			}
			for _, f := range all {
				if f.Result != works && f.Result != skipped {
					t.Errorf("%s: %s %s", f.Check, f.Result, f.Detail)
				}
			}
		})
	}
}

func mustConf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgwatchdog.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// What the daemons do is what this kernel can: the proofs themselves.
func TestDoctorProofs(t *testing.T) {
	t.Parallel()
	k := thisKernel()
	_, err1 := k.pidfd()
	_, err2 := k.synchronised()
	limit, err3 := k.descriptors()
	if err := errors.Join(err1, k.inotify(t.TempDir()), k.timers(), err2, err3); err != nil || limit == 0 {
		t.Errorf("%v, %d descriptors", err, limit)
	}
	if err := k.inotify(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("watched what is not there: %v", err)
	}
}

const (
	keyLineA = "alpha 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
	keyLineB = "beta f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
)

func TestDoctorFiles(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	write := func(text string, mode os.FileMode) {
		if err := errors.Join(os.WriteFile(keys, []byte(text), 0o600), os.Chmod(keys, mode)); err != nil {
			t.Fatal(err)
		}
	}
	look := func(args ...string) map[string]finding {
		s := newSession(0, "")
		s.kernel = healthyKernel()
		s.run(t.Context(), append([]string{"doctor", "--json"}, args...)...)
		if strings.Contains(s.out.String(), "0f1011") {
			t.Errorf("a secret was shown: %s", s.out)
		}
		return mustFindings(t, s.out.String())
	}
	write(keyLineA+keyLineB, 0o600)
	expect{"key file", works, "2 keys for the user", ""}.in(t, look("--key-file", keys))
	expect{"key file", works, ": alpha, beta", ""}.in(t, look("--config", mustConf(t, "key_file = '"+keys+"'\n")))
	write(keyLineA, 0o644)
	expect{"key file", missing, "others have access (mode 0644)", "chmod 600 " + keys}.in(t, look("--key-file", keys))
	write("alpha 0f1011\n", 0o600)
	expect{"key file", missing, keys + ":1: secret", "correct " + keys}.in(t, look("--key-file", keys))
	expect{"key file", missing, "no such file", "cm_ctl keygen -o " + keys + ".no"}.in(t, look("--key-file", keys+".no"))
	expect{"key file", skipped, "not authenticated", "cm_ctl keygen"}.in(t, look("--config", mustConf(t, "")))

	good := look("--config", mustConf(t, "log_level = debug\nwatchdog.max_heartbeat_connections = 961\n"))
	expect{"pgwatchdog.conf", works, "2 settings", ""}.in(t, good)
	expect{"descriptors", missing, "1024 may be open here, 1025 are needed for 961", "LimitNOFILE=1025"}.in(t, good)
	expect{"pgwatchdog.conf", missing, "watchdog.on_timout", "correct "}.in(t, look("--config", mustConf(t, "watchdog.on_timout = wait\n")))
	expect{"pgwatchdog.conf", missing, "on_timeout", "SIGHUP"}.in(t, look("--config", mustConf(t, "watchdog.on_timeout = kill\n")))
	expect{"pgwatchdog.conf", missing, "no such file", "--config"}.in(t, look("--config", keys+".no"))
}

func TestPreloadsWatchdog(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"": false, "pg_stat_statements": false, "watchdogs": false, "pg_watchdog, x": false,
		"watchdog": true, "pg_stat_statements, watchdog": true, `"$libdir/watchdog"`: true, "/usr/lib/watchdog.so,x": true,
	} {
		if got := preloadsWatchdog(conf.Entry{Value: value}); got != want {
			t.Errorf("%q: %t", value, got)
		}
	}
}
