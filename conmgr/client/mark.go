// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// errNoMark means that a port of this host is not a trusted conmgr's.
var errNoMark = errors.New("no mark of a conmgr")

// isLocal reports whether a host of the list can be this one.
func isLocal(host string) bool {
	if host == "localhost" || filepath.IsAbs(host) {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// dialMark connects to the mark of a port and makes sure who holds it. Every
// failure is errNoMark: what cannot be asked is not a conmgr.
func (d *Dialer) dialMark(ctx context.Context, port uint16, trusted string) (net.Conn, error) {
	conn, err := d.dialUnix(ctx, "@pgconmgr:"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, fmt.Errorf("%w at port %d of this host: %w", errNoMark, port, err)
	}
	if err := d.checkHolder(conn, trusted); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w at port %d of this host: %w", errNoMark, port, err)
	}
	return conn, nil
}

// dialUnix waits while the queue of the listener is full: then connect(2) says
// EAGAIN for a Unix socket that does not block.
func (d *Dialer) dialUnix(ctx context.Context, address string) (net.Conn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		conn, err := d.dial(ctx, "unix", address)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// dial reaches a conmgr.
func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.DialFunc != nil {
		return d.DialFunc(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// checkHolder trusts a mark of the own user, of root and of the named user.
func (d *Dialer) checkHolder(conn net.Conn, trusted string) error {
	ask := d.peerUID
	if ask == nil {
		ask = peerUID
	}
	uid, err := ask(conn)
	if err != nil {
		return fmt.Errorf("ask who holds it: %w", err)
	}
	if uid == 0 || int(uid) == os.Geteuid() {
		return nil
	}
	if trusted == "" {
		return fmt.Errorf("it is held by user %d, who is not trusted: set conmgr_user if conmgr runs as that user", uid)
	}
	want, err := lookupUID(trusted)
	if err != nil {
		return err
	}
	if uid != want {
		return fmt.Errorf("it is held by user %d, not by %s (conmgr_user)", uid, trusted)
	}
	return nil
}

// lookupUID takes a system user's name or number.
func lookupUID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("conmgr_user: %w", err)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("conmgr_user %s: uid %q", name, u.Uid)
	}
	return uint32(n), nil
}
