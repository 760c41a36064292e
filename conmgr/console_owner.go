// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/unixsock"
)

// owner is the user at the other end of an application's socket.
type owner struct {
	known bool
	uid   uint32
	pid   int32 // 0 for unknown: TCP sockets do not tell it
}

// unixOwner asks the kernel who connected.
func unixOwner(c *net.UnixConn) owner {
	p, err := unixsock.PeerOf(c)
	return owner{known: err == nil, uid: p.UID, pid: p.PID}
}

// tcpOwners asks the kernel for the owner of single TCP sockets of this network
// namespace (sock_diag(7), no capability needed). It must be closed.
type tcpOwners struct{ fd int }

func openTCPOwners() (*tcpOwners, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval(int64(time.Second))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	return &tcpOwners{fd: fd}, nil
}

func (t *tcpOwners) close() { _ = unix.Close(t.fd) }

// Message sizes and places of linux/netlink.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 16 + 56 // nlmsghdr, inet_diag_req_v2
	diagReplyMin     = 16 + 72 // nlmsghdr, inet_diag_msg
	diagReplyUID     = 16 + 64
)

// lookup returns the owner of the socket that has this local address and this
// remote one; unknown when there is none.
func (t *tcpOwners) lookup(local, remote netip.AddrPort) owner {
	if err := unix.Send(t.fd, diagRequest(local, remote), 0); err != nil {
		return owner{}
	}
	var buf [1024]byte
	n, _, err := unix.Recvfrom(t.fd, buf[:], 0)
	if err != nil || n < diagReplyMin || binary.NativeEndian.Uint16(buf[4:]) != sockDiagByFamily {
		return owner{} // NLMSG_ERROR: no such socket any more
	}
	return owner{known: true, uid: binary.NativeEndian.Uint32(buf[diagReplyUID:])}
}

// diagRequest asks for exactly one socket, in whatever state and with whatever
// cookie.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, diagRequestSize)
	binary.NativeEndian.PutUint32(b, diagRequestSize)
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[16:]
	r[0], r[1] = unix.AF_INET6, unix.IPPROTO_TCP
	src, dst := local.Addr().Unmap(), remote.Addr().Unmap()
	if src.Is4() {
		r[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(r[4:], 0xffffffff) // idiag_states
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], src.AsSlice())
	copy(r[28:44], dst.AsSlice())
	binary.NativeEndian.PutUint32(r[48:], 0xffffffff) // INET_DIAG_NOCOOKIE
	binary.NativeEndian.PutUint32(r[52:], 0xffffffff)
	return b
}
