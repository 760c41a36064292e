// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SocketKeeper keeps copies of listening descriptors beyond the life of this
// process, as the fd store of systemd does: who connects while the process is
// away waits in the kernel's queue instead of being refused. Both methods are called
// on the loop goroutine and must not block.
type SocketKeeper interface {
	// Keep copies the descriptor under a name; a second one of the name replaces
	// nothing. What cannot be kept is no error here.
	Keep(name string, fd int)
	// Forget closes the copies under the name.
	Forget(name string)
}

// inherited is a listening descriptor of an earlier process.
type inherited struct {
	fd       int
	datagram bool
	addr     netip.AddrPort
}

// keptName names a socket for the keeper: it has no colon, which ends a name in
// LISTEN_FDNAMES (sd_listen_fds(3)).
func keptName(datagram bool, addr netip.AddrPort) string {
	kind := "tcp"
	if datagram {
		kind = "udp"
	}
	return kind + "-" + strings.ReplaceAll(addr.String(), ":", "_")
}

// Inherit takes over descriptors that a keeper has handed to this process, and owns
// them from then on. SetAddrs uses them for the addresses that it wants; what is no
// socket of a listener is closed, and the error names it. Call it before SetAddrs,
// and DropInherited when the addresses are settled.
func (ln *Listener) Inherit(fds []int) error {
	var failed error
	for _, fd := range fds {
		in, err := inspect(fd)
		if err != nil {
			_ = unix.Close(fd)
			failed = fmt.Errorf("inherited descriptor %d: %w", fd, err)
			continue
		}
		ln.inherited = append(ln.inherited, in)
	}
	return failed
}

// inspect finds out what an inherited descriptor is.
func inspect(fd int) (inherited, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return inherited{}, fmt.Errorf("expected a socket: %w", err)
	}
	addr := localAddr(fd)
	if !addr.IsValid() || addr.Port() == 0 {
		return inherited{}, fmt.Errorf("expected a socket with an IP address and a port")
	}
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if kind != unix.SOCK_DGRAM && (kind != unix.SOCK_STREAM || listens == 0) {
		return inherited{}, fmt.Errorf("expected a listening TCP socket or a UDP socket on %s", addr)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return inherited{}, fmt.Errorf("make %s non-blocking: %w", addr, err)
	}
	return inherited{fd: fd, datagram: kind == unix.SOCK_DGRAM, addr: addr}, nil
}

// claim takes an inherited descriptor off the list; -1 when there is none.
func (ln *Listener) claim(datagram bool, addr netip.AddrPort) int {
	for i, in := range ln.inherited {
		if in.datagram == datagram && in.addr == addr {
			ln.inherited = slices.Delete(ln.inherited, i, i+1)
			return in.fd
		}
	}
	return -1
}

// DropInherited closes the inherited descriptors that no address wanted, here and
// at the keeper.
func (ln *Listener) DropInherited() {
	for _, in := range ln.inherited {
		_ = unix.Close(in.fd)
		ln.forgetKept(in.datagram, in.addr)
	}
	ln.inherited = nil
}

// handOver gives the keeper a copy of a socket that is listened on.
func (ln *Listener) handOver(datagram bool, addr netip.AddrPort, fd int) {
	if ln.cfg.Keeper != nil {
		ln.cfg.Keeper.Keep(keptName(datagram, addr), fd)
	}
}

func (ln *Listener) forgetKept(datagram bool, addr netip.AddrPort) {
	if ln.cfg.Keeper != nil && !ln.stopped {
		ln.cfg.Keeper.Forget(keptName(datagram, addr))
	}
}
