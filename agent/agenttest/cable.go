// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"errors"
	"os"
	"sync"
)

// cable joins a host's tap device to one that is its port of the switch, and
// carries the frames that the kernel puts into either to the other.
type cable struct {
	port, eth0 *os.File
	carriers   sync.WaitGroup

	mu        sync.RWMutex // guards the following; read-held while a frame passes
	unplugged bool
}

// addPort makes the switch's end.
func (c *cable) addPort(owner *space, name string) (err error) {
	c.port, err = openTapIn(owner, name)
	return err
}

// plugIn makes the host's end and begins to carry.
func (c *cable) plugIn(host *space) (err error) {
	if c.eth0, err = openTapIn(host, "eth0"); err != nil {
		return err
	}
	c.carriers.Go(func() { c.carry(c.eth0, c.port) })
	c.carriers.Go(func() { c.carry(c.port, c.eth0) })
	return nil
}

// carry moves frames in one direction until close.
func (c *cable) carry(from, to *os.File) {
	frame := make([]byte, 1<<16)
	for {
		n, err := from.Read(frame)
		if err != nil {
			return
		}
		c.pass(frame[:n], to)
	}
}

// pass delivers a frame unless the cable is unplugged. One that the other device
// refuses, as it is down, is lost, as it would be on a wire.
func (c *cable) pass(frame []byte, to *os.File) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.unplugged {
		_, _ = to.Write(frame)
	}
}

// setPlugged changes the carrier of the host's device; no frame is under way then.
// A tap without carrier still takes what is written to it: the flag stops that.
func (c *cable) setPlugged(plugged bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unplugged = !plugged
	return setCarrier(c.eth0, plugged)
}

// close removes both devices.
func (c *cable) close() error {
	var errs []error
	for _, tap := range []*os.File{c.port, c.eth0} {
		if tap != nil {
			errs = append(errs, tap.Close())
		}
	}
	c.carriers.Wait()
	return errors.Join(errs...)
}
