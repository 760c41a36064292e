// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"
)

// Scramble says how a path delivers what a host sends from or to one UDP port
// in another order, and twice.
type Scramble struct {
	Port uint16
	// Late and Twice are the percentages of the datagrams that are held back, and
	// of those that are delivered at once and again later.
	Late, Twice float64
	// Hold is the longest time until then; the shortest is half of it.
	Hold time.Duration
}

// Scrambler is a detour of the switch: a tap device that chosen frames are
// forwarded to, and that they come back from. Kernels without netem have
// nothing else that delays.
type Scrambler struct {
	host *Host
	o    Scramble
	tap  *os.File
	done chan struct{}

	held, copied atomic.Uint64
}

// Scramble begins to scramble what the host sends, in place of its other
// faults. Close ends it.
func (h *Host) Scramble(ctx context.Context, o Scramble) (*Scrambler, error) {
	chance, err := lossMatch(o.Late + o.Twice)
	if err != nil {
		return nil, err
	}
	device := "x-" + h.Name
	s := &Scrambler{host: h, o: o, done: make(chan struct{})}
	err = h.lab.owner.do(func() (err error) {
		s.tap, err = openTap(device)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("scramble %s: %w", h.Name, err)
	}
	go s.run()
	if err := h.divert(ctx, device, chance, o.Port); err != nil {
		return nil, errors.Join(fmt.Errorf("scramble %s: %w", h.Name, err), s.Close(ctx))
	}
	return s, nil
}

// divert makes the tap a port of the bridge that nothing but the rules sends to:
// it neither learns addresses from the frames that come back nor is flooded.
func (h *Host) divert(ctx context.Context, device, chance string, port uint16) error {
	links := fmt.Sprintf("link set %[1]s master br0 up\n"+
		"link set %[1]s type bridge_slave learning off flood off mcast_flood off bcast_flood off\n", device)
	if err := h.lab.onSwitch(ctx, links, "ip", "-batch", "-"); err != nil {
		return err
	}
	state := "/sys/class/net/" + device + "/brport/state"
	if err := h.lab.owner.do(func() error { return waitFile(ctx, state, forwarding) }); err != nil {
		return err
	}
	var rules []string
	for _, match := range ofPort("udp", port) {
		rules = append(rules, fmt.Sprintf("%s %s fwd to %q", match, chance, device))
	}
	_, err := h.setRules(ctx, rules, nil)
	return err
}

// run takes frames until Close.
func (s *Scrambler) run() {
	defer close(s.done)
	buf := make([]byte, 2048)
	for {
		n, err := s.tap.Read(buf)
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		if rand.Float64()*(s.o.Late+s.o.Twice) < s.o.Late {
			s.held.Add(1)
		} else {
			s.copied.Add(1)
			s.deliver(frame)
		}
		time.AfterFunc(s.o.Hold/2+rand.N(s.o.Hold/2), func() { s.deliver(frame) })
	}
}

// deliver gives a frame back to the switch. One that is still held at the end is
// lost.
func (s *Scrambler) deliver(frame []byte) { _, _ = s.tap.Write(frame) }

// Counts returns how many datagrams were held back, and how many were delivered
// twice.
func (s *Scrambler) Counts() (held, copied uint64) { return s.held.Load(), s.copied.Load() }

// Close ends the fault and removes the detour.
func (s *Scrambler) Close(ctx context.Context) error {
	_, healed := s.host.Heal(ctx)
	err := s.tap.Close()
	<-s.done
	return errors.Join(healed, err)
}
