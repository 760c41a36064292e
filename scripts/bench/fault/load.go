// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// group is what happens to an application.
type group string

const (
	victims group = "victims" // of the primary, which is lost
	others  group = "others"  // of the standby
)

// kinds are the ways of applications to their instance; they take turns.
var kinds = []string{"console", "pass-through", "proxy"}

// patience bounds each wait of an application.
const patience = 30 * time.Second

// glance is how long applications let events gather: to wake for each would take
// from conmgr what the applications of a real host have processors of their own
// for. Errors are seen as much later.
const glance = time.Millisecond

// application is one connection to conmgr: a plain descriptor, as Go's poller would
// read along.
type application struct {
	fd    int
	kind  int
	group group
	lost  mono.Instant // when its error was read; zero: never
}

// load is what a process of applications has.
type load struct {
	apps    map[int32]*application // by descriptor
	epoll   int
	victims int
	early   int // others that were disturbed
}

func newLoad() *load { return &load{apps: map[int32]*application{}, epoll: -1} }

// Obey opens n applications of a group; waits for the errors of all victims and
// tells their instants; asks n others, or all for 0, whether they live.
func (l *load) Obey(order string, n int) (string, error) {
	switch order {
	case string(victims), string(others):
		for i := range n {
			if err := l.open(group(order), i%len(kinds)); err != nil {
				return "", err
			}
		}
		return "ok", nil
	case "lost":
		return l.awaitLost()
	case "alive":
		return "ok", l.askOthers()
	}
	return "", fmt.Errorf("unknown order %q", order)
}

// outcome is the answer to the order lost.
type outcome struct {
	At    [][]mono.Instant `json:"at"` // by kind
	Early int              `json:"early"`
}

// awaitLost waits until every victim has read its error, and forgets them.
func (l *load) awaitLost() (string, error) {
	events := make([]unix.EpollEvent, 1024)
	for end := time.Now().Add(patience); l.victims > 0; {
		n, err := unix.EpollWait(l.epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return "", fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			l.happened(l.apps[e.Fd])
		}
		if n < len(events) {
			time.Sleep(glance)
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("%d applications got no error within %v", l.victims, patience)
		}
	}
	out := outcome{At: make([][]mono.Instant, len(kinds)), Early: l.early}
	for fd, a := range l.apps {
		if a.group == victims {
			out.At[a.kind] = append(out.At[a.kind], a.lost)
			delete(l.apps, fd)
			_ = unix.Close(a.fd)
		}
	}
	text, err := json.Marshal(out)
	return string(text), err
}

// happened reads what came for an application: of a victim, its end.
func (l *load) happened(a *application) {
	var b [1024]byte
	n, err := read(a.fd, b[:])
	at := clock.Now()
	switch {
	case a.group == others:
		l.early++
	case n <= 0 || err != nil || slices.Contains([]byte("EA"), b[0]): // ErrorResponse, or the notification before it
		a.lost = at
		l.victims--
	}
}

// open connects an application to its instance and watches it.
func (l *load) open(g group, kind int) (err error) {
	if l.epoll < 0 {
		if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return err
		}
	}
	a := &application{kind: kind, group: g}
	if a.fd, err = connect(portOf(g, kind)); err != nil {
		return fmt.Errorf("%s %s: %w", g, kinds[kind], err)
	}
	if err := a.greet(); err != nil {
		return fmt.Errorf("%s %s: %w", g, kinds[kind], err)
	}
	l.apps[int32(a.fd)] = a
	if g == victims {
		l.victims++
	}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, a.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(a.fd)})
}

func connect(port int) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return -1, err
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		if err == unix.EISCONN {
			return fd, nil // after an interruption
		}
		if err != unix.EINTR && err != unix.EALREADY {
			return fd, err
		}
	}
}

// read reads once. The runtime's signals interrupt a read with a time limit.
func read(fd int, b []byte) (int, error) {
	for {
		if n, err := unix.Read(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

func portOf(g group, kind int) int {
	switch {
	case kinds[kind] != "pass-through":
		return portConsole
	case g == victims:
		return portPrimary
	}
	return portStandby
}

// greet opens the session and binds it to its instance.
func (a *application) greet() error {
	params := "user\x00app\x00database\x00bench\x00"
	switch {
	case kinds[a.kind] == "console":
		params = "user\x00app\x00database\x00conmgr\x00"
	case a.group == others:
		params += "options\x00-c conmgr.target_session_attrs=standby\x00"
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(9+len(params)))
	packet = binary.BigEndian.AppendUint32(packet, 3<<16)
	if err := a.say(append(append(packet, params...), 0)); err != nil {
		return err
	}
	if kinds[a.kind] != "console" {
		return nil
	}
	if a.group == victims {
		return a.query("TARGET primary")
	}
	return a.query("TARGET standby")
}

func (a *application) query(sql string) error {
	packet := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(5+len(sql)))
	return a.say(append(append(packet, sql...), 0))
}

// say writes a message and reads to ReadyForQuery.
func (a *application) say(message []byte) error {
	if _, err := unix.Write(a.fd, message); err != nil {
		return err
	}
	var b []byte
	for {
		var more [4096]byte
		n, err := read(a.fd, more[:])
		if err != nil || n == 0 {
			return fmt.Errorf("the connection ended with %q: %w", b, errors.Join(err, errEnd))
		}
		b = append(b, more[:n]...)
		if len(b) >= 6 && string(b[len(b)-6:len(b)-1]) == "Z\x00\x00\x00\x05" {
			return nil
		}
	}
}

var errEnd = errors.New("no ReadyForQuery")

// askOthers lets every other application ask something.
func (l *load) askOthers() error {
	for _, a := range l.apps {
		if a.group != others {
			continue
		}
		if err := a.query("SHOW server_version"); err != nil {
			return fmt.Errorf("%s: %w", kinds[a.kind], err)
		}
	}
	return nil
}
