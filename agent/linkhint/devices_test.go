// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// Each kind of device comes by the functions that the programs hang on, with its loss
// and with its return. The programs are read without a Watcher: of some devices
// rtnetlink may tell it first.
func TestBPFDevices(t *testing.T) {
	if !vm.Inside() {
		t.Skip("this machine's kernel lacks some of the devices: see TestInVirtualMachine")
	}
	n := mustNode(t)
	t0 := n.mustTap(t, "t0")
	n.ip(t, "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
		"link add d0 type dummy", "link set d0 up",
		"link add b0 type bond mode active-backup miimon 10", "link set t0 master b0", "link set t0 up", "link set b0 up",
		"link add link b0 name b0.5 type vlan id 5", "link set b0.5 up")
	for _, name := range []string{"v0", "v1", "d0", "t0", "b0", "b0.5"} {
		agenttest.Eventually(t, limit, name+" has a carrier", func() bool { return n.sysfs(name, "carrier") == "1" })
	}
	for _, source := range []Source{Fentry, Kprobe} {
		t.Run(source.String(), func(t *testing.T) {
			s := mustSource(t, n, source)
			for _, step := range []struct {
				cut, mend func()
				devices   []string
			}{
				{func() { n.ip(t, "link set v1 down") }, func() { n.ip(t, "link set v1 up") }, []string{"v0"}},
				{func() { n.ip(t, "link set d0 carrier off") }, func() { n.ip(t, "link set d0 carrier on") }, []string{"d0"}},
				{func() { t0.carrier(t, false) }, func() { t0.carrier(t, true) }, []string{"t0", "b0", "b0.5"}},
			} {
				step.cut()
				for _, name := range step.devices {
					await(t, s, name, true)
				}
				step.mend()
				for _, name := range step.devices {
					await(t, s, name, false)
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

// await reads events until the device's loss, or its return, comes.
func await(t *testing.T, s carrierSource, name string, lost bool) {
	t.Helper()
	end := time.After(limit)
	for {
		select {
		case e := <-s.events():
			if e.name == name && e.lost == lost {
				return
			}
		case <-end:
			t.Fatalf("%v tells nothing of %s: lost %t", s.kind(), name, lost)
		}
	}
}

// sysfs reads what the kernel shows of a device.
func (n *node) sysfs(name, file string) string {
	var text []byte
	err := n.host.Do(func() (err error) {
		text, err = os.ReadFile("/sys/class/net/" + name + "/" + file)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
