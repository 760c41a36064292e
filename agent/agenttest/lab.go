// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultHosts is the topology of most tests: one application host and two
// database hosts.
var DefaultHosts = []string{"client", "db1", "db2"}

// Options say what a lab consists of.
type Options struct {
	// Hosts are the names, 1 to 12 letters and digits each, as they become parts of
	// interface names; none is DefaultHosts.
	Hosts []string
	// Tap are those of the hosts whose eth0 is a tap device instead of a veth. The
	// kernel announces the loss of its carrier at most once per second, as it does
	// for a real network card; a veth's loss it announces always at once.
	Tap []string
}

// Lab is a set of hosts on one switch. Its methods may be called concurrently;
// Close ends everything in it.
type Lab struct {
	// Dir is the lab's own directory, deleted by Close. Everybody may enter it.
	Dir string

	record    *record
	owner     *space // the switch
	links     *netlink.Handle
	hosts     []*Host
	binaries  sync.Mutex // held while programs are put into Dir
	throttle  throttle
	mu        sync.Mutex // guards the following
	processes []*Process
	closed    bool
}

// labCount makes the ids of one process's labs differ.
var labCount atomic.Int64

// New is NewWith for hosts on veth devices.
func New(ctx context.Context, hosts ...string) (*Lab, error) {
	return NewWith(ctx, Options{Hosts: hosts})
}

// NewWith makes a lab and removes what dead owners left.
func NewWith(ctx context.Context, o Options) (*Lab, error) {
	if len(o.Hosts) == 0 {
		o.Hosts = DefaultHosts
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if _, err := Sweep(ctx); err != nil {
		return nil, fmt.Errorf("remove labs of dead owners: %w", err)
	}
	l, err := plan(o)
	if err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab: %w", err), l.Close())
	}
	return l, nil
}

func (o Options) check() error {
	if err := checkHostNames(o.Hosts); err != nil {
		return err
	}
	for _, name := range o.Tap {
		if !slices.Contains(o.Hosts, name) {
			return fmt.Errorf("tap host %q: expected one of %q", name, o.Hosts)
		}
	}
	return nil
}

func checkHostNames(hosts []string) error {
	for i, name := range hosts {
		ok := len(name) >= 1 && len(name) <= 12
		for _, c := range name {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
		}
		if !ok || name == "switch" {
			return fmt.Errorf("host name %q: expected 1 to 12 lower-case letters and digits, not \"switch\"", name)
		}
		if slices.Contains(hosts[:i], name) {
			return fmt.Errorf("host name %q appears twice", name)
		}
	}
	if len(hosts) > 250 {
		return fmt.Errorf("%d hosts: at most 250 fit the network", len(hosts))
	}
	return nil
}

// plan decides every name and writes the record; nothing else exists yet.
func plan(o Options) (*Lab, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("pgcm-%d-%d", pid, labCount.Add(1))
	r := &record{
		ID: id, Owner: pid, OwnerStart: start,
		Cgroup:     filepath.Join(root, id),
		Dir:        ScratchDir() + "/pgconmgr-" + strings.TrimPrefix(id, "pgcm-"),
		Namespaces: []string{id + "-switch"},
	}
	l := &Lab{Dir: r.Dir, record: r}
	for i, name := range o.Hosts {
		h := newHost(l, i+1, name)
		if slices.Contains(o.Tap, name) {
			h.cable = new(cable)
		}
		l.hosts = append(l.hosts, h)
		r.Namespaces = append(r.Namespaces, h.Namespace())
	}
	return l, r.write()
}

// build makes directories, control groups, namespaces, cables, addresses.
func (l *Lab) build(ctx context.Context) error {
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(l.Dir, "log"), 0o755); err != nil {
		return err
	}
	if _, err := makeCgroup(l.record.Cgroup); err != nil {
		return err
	}
	if err := addNetns(ctx, l.record.Namespaces); err != nil {
		return err
	}
	if err := l.buildSwitch(ctx); err != nil {
		return err
	}
	for _, h := range l.hosts {
		if err := h.build(ctx); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	for _, h := range l.hosts {
		if err := h.waitForwarding(ctx); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// buildSwitch makes the bridge, a port per host and the hooks for faults.
func (l *Lab) buildSwitch(ctx context.Context) error {
	var err error
	if l.owner, err = openSpace(l.record.ID + "-switch"); err != nil {
		return err
	}
	// The bridge is to forward, not to speak: its own packets would count.
	if err := l.owner.do(disableIPv6); err != nil {
		return err
	}
	var links, rules strings.Builder
	links.WriteString("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n")
	rules.WriteString("table netdev lab {\n")
	for _, h := range l.hosts {
		if err := h.addPort(&links); err != nil {
			return err
		}
		fmt.Fprintf(&links, "link set %s master br0 up\n", h.port())
		h.writeHooks(&rules)
	}
	rules.WriteString("}\n")
	if err := l.onSwitch(ctx, links.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := l.onSwitch(ctx, rules.String(), "nft", "-f", "-"); err != nil {
		return err
	}
	return l.owner.call(func() (err error) {
		l.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
}

// disableIPv6 acts on the interfaces that its namespace is going to have.
func disableIPv6() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("no IPv6 in this kernel: a lab has both families")
	}
	return err
}

// onSwitch runs a tool in the switch's namespace.
func (l *Lab) onSwitch(ctx context.Context, stdin, name string, args ...string) error {
	return l.owner.call(func() error {
		_, err := runTool(ctx, stdin, name, args...)
		return err
	})
}

// OnSwitch runs f inside the switch's namespaces, as [Host.Do] does in a host's.
// The port that leads to a host is named "p-" and its name.
func (l *Lab) OnSwitch(f func() error) error { return l.owner.do(f) }

// ID is the lab's name on this machine: namespaces, control group and
// directory are named after it.
func (l *Lab) ID() string { return l.record.ID }

// Hosts returns the hosts in the order they were named.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// Processes returns all that was started, with those that have ended.
func (l *Lab) Processes() []*Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.processes)
}

// Host returns the named host and panics when the lab has none: that is a
// mistake in the program, not an outcome.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.hosts {
		if h.Name == name {
			return h
		}
	}
	panic("agenttest: no host " + name + " in the lab")
}

// Networks returns the prefixes that all hosts have an address of.
func (l *Lab) Networks() (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64")
}

// Close ends every process of the lab and removes all of it. It may be called
// twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	closed, processes := l.closed, l.processes
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	errs := []error{cgroup(l.record.Cgroup).kill(ctx)}
	for _, p := range processes {
		errs = append(errs, p.wait(ctx))
	}
	if l.links != nil {
		l.links.Close()
	}
	errs = append(errs, l.throttle.close())
	for _, h := range l.hosts {
		if h.cable != nil {
			errs = append(errs, h.cable.close())
		}
		if h.space != nil {
			h.space.close()
		}
	}
	if l.owner != nil {
		l.owner.close()
	}
	return errors.Join(append(errs, l.record.remove(ctx))...)
}

// removeWithRetry removes a group whose last process may still be a zombie.
func removeWithRetry(ctx context.Context, c cgroup) error {
	var last error
	err := poll(ctx, 5*time.Second, "removal of "+string(c), func() (bool, error) {
		last = c.remove()
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
