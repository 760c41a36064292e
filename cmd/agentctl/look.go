// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// row is a socket and what else is known of it.
type row struct {
	sockdiag.Socket
	iface   string // name of the interface that it is bound to; "": none
	user    string // name of the owner's uid, or the number; "": nobody's
	owners  []process
	backend *backend // nil: none, or not asked for
}

// look is what was there at one moment.
type look struct {
	at   time.Time
	rows []row
	// notes say what could not be shown, and why.
	notes []string
	// joinErr: the database was asked and did not tell its sessions.
	joinErr error
}

// allNotes are the notes, when trouble with the database is one of them.
func (o *look) allNotes() []string {
	if o.joinErr == nil {
		return o.notes
	}
	return append(slices.Clone(o.notes), o.joinErr.Error())
}

// lister looks at sockets, again and again.
type lister struct {
	conn       *sockdiag.Conn
	filter     sockdiag.Filter
	own        []netip.Addr      // the addresses of the namespace
	interfaces map[uint32]string // their names
	users      userNames
	db         *database // nil: not asked for
	now        func() time.Time
}

// openLister prepares for looking at a target. The caller closes it.
func openLister(ctx context.Context, e *env, t *target) (*lister, error) {
	l := &lister{users: make(userNames), interfaces: make(map[uint32]string), now: e.now}
	if t.joined {
		// From the own namespace, which matters for a database that is not reached
		// by a Unix socket.
		l.db = &database{dsn: t.dsn}
		if err := l.db.connect(ctx); err != nil {
			return nil, err
		}
	}
	if err := inNamespace(t.netns, func() error { return l.enter(t) }); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// enter does what must be done inside the network namespace.
func (l *lister) enter(t *target) (err error) {
	if l.filter, err = t.filter(); err != nil {
		return err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, i := range interfaces {
		l.interfaces[uint32(i.Index)] = i.Name
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("own addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(p.IP); ok {
				l.own = append(l.own, own.Unmap())
			}
		}
	}
	l.conn, err = sockdiag.Dial()
	return err
}

func (l *lister) close() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	if l.db != nil {
		l.db.close()
	}
}

// look returns the sockets, in the order of their ports and peers. Trouble with
// the database is part of the answer.
func (l *lister) look(ctx context.Context) (*look, error) {
	found, err := l.conn.Find(ctx, l.filter)
	if err != nil {
		return nil, findError(err)
	}
	out := &look{at: l.now(), rows: make([]row, len(found))}
	inodes := make(map[uint32]bool)
	for i, s := range found {
		out.rows[i] = row{Socket: s, iface: l.interfaces[s.Interface]}
		if owned(&s) {
			out.rows[i].user = l.users.name(s.UID)
		}
		if s.Inode != 0 {
			inodes[s.Inode] = true
		}
	}
	out.addOwners(findOwners("/proc", inodes))
	slices.SortFunc(out.rows, compareRows)
	if l.db != nil {
		out.joinErr = out.addBackends(ctx, l.db)
	}
	return out, nil
}

// findError says what to do about an error of the kernel.
func findError(err error) error {
	if errors.Is(err, sockdiag.ErrNotSupported) {
		return fmt.Errorf("%w: try modprobe tcp_diag", err)
	}
	return err
}

// owned reports whether the kernel knows a user: it says 0 for what is left of a
// connection, and for one that is not yet accepted.
func owned(s *sockdiag.Socket) bool {
	return s.State != sockdiag.TimeWait && s.State != sockdiag.SynRecv
}

func compareRows(a, b row) int {
	return cmp.Or(
		cmp.Compare(a.Local.Port(), b.Local.Port()), a.Remote.Compare(b.Remote),
		a.Local.Addr().Compare(b.Local.Addr()), cmp.Compare(a.Cookie, b.Cookie),
	)
}

func (o *look) addOwners(found owners) {
	unseen := false
	for i := range o.rows {
		r := &o.rows[i]
		r.owners = found.byInode[r.Inode]
		unseen = unseen || r.Inode != 0 && len(r.owners) == 0
	}
	if found.hidden && unseen {
		o.notes = append(o.notes, "processes of other users are not shown: root sees them (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH)")
	}
}

func (o *look) addBackends(ctx context.Context, db *database) error {
	s, err := db.sessions(ctx)
	if err != nil {
		return err
	}
	s.join(o.rows)
	if s.blind {
		o.notes = append(o.notes, "the role of --dsn sees its own sessions only: GRANT pg_read_all_stats TO it")
	}
	return nil
}
