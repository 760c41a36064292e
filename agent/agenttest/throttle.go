// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// throttleDevice is a device of the switch that leads nowhere.
const throttleDevice = "throttle0"

// throttle is the device whose carrier Lab.Throttle flips.
type throttle struct {
	mu  sync.Mutex // guards the following; held while the carrier is flipped
	tap *os.File   // nil until the first time
}

// Throttle begins the second in which the kernel does not announce another loss of
// carrier: a device of the switch that leads nowhere loses its own. It returns when
// the kernel has announced that, which takes a second when it is throttled already.
// What is unplugged next is then announced a second after Effect.After, at the
// latest, unless its device is a veth; anything that asks the kernel for the state of
// that device (RTM_GETLINK, sysfs carrier, ip link) has it announced earlier.
//
// The limit is one of the whole machine (net/core/link_watch.c): labs of tests that
// run at the same time share it.
func (l *Lab) Throttle(ctx context.Context) (Effect, error) {
	l.throttle.mu.Lock()
	defer l.throttle.mu.Unlock()
	if err := l.makeThrottleLocked(); err != nil {
		return Effect{}, err
	}
	e, err := timed(func() error { return l.flipThrottleLocked(ctx, false, "down\n") })
	if err != nil {
		return e, err
	}
	// A carrier that comes back is never throttled, and begins nothing.
	return e, l.flipThrottleLocked(ctx, true, "up\n")
}

// flipThrottleLocked waits for operstate, as it changes only with the
// announcement, and looking at it does not bring that about.
func (l *Lab) flipThrottleLocked(ctx context.Context, on bool, operstate string) error {
	if err := setCarrier(l.throttle.tap, on); err != nil {
		return err
	}
	return l.owner.do(func() error {
		return waitFile(ctx, "/sys/class/net/"+throttleDevice+"/operstate", operstate)
	})
}

func (l *Lab) makeThrottleLocked() error {
	if l.throttle.tap != nil {
		return nil
	}
	tap, err := openTapIn(l.owner, throttleDevice)
	if err != nil {
		return err
	}
	link, err := l.links.LinkByName(throttleDevice)
	if err == nil {
		err = l.links.LinkSetUp(link)
	}
	if err != nil {
		_ = tap.Close()
		return fmt.Errorf("set %s up: %w", throttleDevice, err)
	}
	l.throttle.tap = tap
	return nil
}

func (t *throttle) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tap == nil {
		return nil
	}
	return t.tap.Close()
}
