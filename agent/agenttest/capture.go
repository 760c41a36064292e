// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Capture watches eth0 of a host from the outside of all processes and keeps
// when the kernel last received and sent payload on one port: the moment that
// a verdict is measured from. Acknowledgements without data do not count, and
// what a fault dropped on its way here was never received. Its methods may be
// called concurrently.
type Capture struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{}
	each func(Packet) // nil: nobody asks

	hosts []*Host // of the lab

	mu       sync.Mutex // guards the following
	received map[netip.Addr]traffic
	sent     map[netip.Addr]traffic
	trace    *trace        // nil until Trace
	late     time.Duration // see CountGaps; 0 counts none
	err      error
}

// traffic is what was seen of one peer in one direction.
type traffic struct {
	last   mono.Instant
	frames int
	gaps   Gaps
}

// Capture starts to watch TCP and UDP packets from or to the port. Close ends
// it; so does the end of the program, not that of the lab.
func (h *Host) Capture(port uint16) (*Capture, error) { return h.CaptureEach(port, nil) }

// CaptureEach is Capture that also hands over each packet, in the order of the
// kernel. each must not call the capture; the payload is valid during the call.
func (h *Host) CaptureEach(port uint16, each func(Packet)) (*Capture, error) {
	var fd int
	err := h.Do(func() (err error) {
		fd, err = packetSocket(port)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", h.Name, err)
	}
	c := &Capture{
		file: os.NewFile(uintptr(fd), "capture"), done: make(chan struct{}), each: each, hosts: h.lab.Hosts(),
		received: make(map[netip.Addr]traffic), sent: make(map[netip.Addr]traffic),
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	go c.run()
	return c, nil
}

// packetSocket opens a packet(7) socket on eth0 of the thread's namespace. The
// filter is there before the first packet can come.
func packetSocket(port uint16) (fd int, err error) {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err := setUpPacketSocket(fd, eth0.Index, port); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpPacketSocket(fd, ifindex int, port uint16) error {
	filter, err := portFilter(port)
	if err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for timestamps: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	all := uint16(unix.ETH_P_ALL)
	address := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: ifindex} // network byte order
	if err := unix.Bind(fd, address); err != nil {
		return fmt.Errorf("bind to eth0: %w", err)
	}
	return nil
}

// run reads until Close.
func (c *Capture) run() {
	defer close(c.done)
	err := c.raw.Read(func(fd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drainLocked(int(fd))
		return c.err != nil
	})
	if err != nil && !errors.Is(err, os.ErrClosed) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = errors.Join(c.err, err)
	}
}

// drainLocked reads all that is there.
func (c *Capture) drainLocked(fd int) {
	var buf [256]byte // the headers
	var control [64]byte
	for {
		n, controlLen, _, from, err := unix.Recvmsg(fd, buf[:], control[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			c.err = fmt.Errorf("capture: %w", err)
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		at, err := packetTime(control[:controlLen])
		if err != nil {
			c.err = err
			return
		}
		c.addLocked(buf[:n], at, link)
	}
}

func (c *Capture) addLocked(packet []byte, at mono.Instant, link *unix.SockaddrLinklayer) {
	p, ok := parsePacket(packet)
	if !ok || p.payload == 0 {
		return
	}
	outgoing := link.Pkttype == unix.PACKET_OUTGOING
	seen, peer := c.received, p.src
	if outgoing {
		seen, peer = c.sent, p.dst
	}
	if c.each != nil || c.trace != nil {
		c.hand(c.packet(packet, p, at, link))
	}
	for _, key := range []netip.Addr{peer, {}} {
		t := seen[key]
		if !t.last.IsZero() {
			t.gaps.add(at.Sub(t.last), c.late)
		}
		t.last = at
		t.frames++
		seen[key] = t
	}
}

// packetTime converts the kernel's wall-clock time of the packet to the
// boot-time clock by how long ago it was.
func packetTime(control []byte) (mono.Instant, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, fmt.Errorf("capture: control message: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS {
			continue
		}
		if len(m.Data) < int(unsafe.Sizeof(unix.Timespec{})) {
			break
		}
		stamp := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
		return bootTime(stamp)
	}
	return 0, errors.New("capture: a packet without the kernel's time")
}

// bootTime is what the boot-time clock showed at a time of the wall clock, a short
// while ago. Both clocks are read, and a busy machine may take the processor away in
// between: the pair that lies closest together counts.
func bootTime(stamp unix.Timespec) (at mono.Instant, err error) {
	const (
		tries = 20
		close = 20 * time.Microsecond
	)
	best := time.Duration(math.MaxInt64)
	for range tries {
		var wall unix.Timespec
		before := clock.Now()
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &wall); err != nil {
			return 0, err
		}
		if apart := clock.Now().Sub(before); apart < best {
			best, at = apart, before.Add(-time.Duration(wall.Nano()-stamp.Nano()))
		}
		if best < close {
			break
		}
	}
	return at, nil
}

// LastReceived is when the last frame with payload from the peer arrived; the
// zero Addr stands for any peer. The instant is zero when there was none.
func (c *Capture) LastReceived(peer netip.Addr) (mono.Instant, error) {
	t, err := c.look(c.received, peer)
	return t.last, err
}

// LastSent is when the last frame with payload to the peer left.
func (c *Capture) LastSent(peer netip.Addr) (mono.Instant, error) {
	t, err := c.look(c.sent, peer)
	return t.last, err
}

// Frames counts the frames with payload of both directions.
func (c *Capture) Frames(peer netip.Addr) (received, sent int, err error) {
	in, err := c.look(c.received, peer)
	if err != nil {
		return 0, 0, err
	}
	out, err := c.look(c.sent, peer)
	return in.frames, out.frames, err
}

// look takes in what has arrived until now, and fails when any packet was
// missed.
func (c *Capture) look(seen map[netip.Addr]traffic, peer netip.Addr) (t traffic, err error) {
	controlled := c.raw.Control(func(fd uintptr) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drainLocked(int(fd))
		if lost := lostPackets(int(fd)); lost > 0 && c.err == nil {
			c.err = fmt.Errorf("capture: the kernel dropped %d packets before they were read", lost)
		}
		t, err = seen[peer], c.err
	})
	if err := errors.Join(controlled, err); err != nil {
		return traffic{}, err
	}
	return t, nil
}

// lostPackets asks for PACKET_STATISTICS, which the question resets.
func lostPackets(fd int) uint32 {
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return stats.Drops
}

// Close ends the capture.
func (c *Capture) Close() error {
	err := c.file.Close()
	<-c.done
	return err
}

// MustCapture captures until the test ends.
func MustCapture(t testing.TB, h *Host, port uint16) *Capture {
	t.Helper()
	c, err := h.Capture(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// MustLastReceived is LastReceived of a frame that must have come.
func MustLastReceived(t testing.TB, c *Capture, peer netip.Addr) mono.Instant {
	t.Helper()
	at, err := c.LastReceived(peer)
	if err != nil {
		t.Fatal(err)
	}
	if at.IsZero() {
		t.Fatalf("no frame from %v was received", peer)
	}
	return at
}
