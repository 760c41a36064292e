// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// syslogSocket is where a local syslog daemon listens (syslog(3)).
const syslogSocket = "/dev/log"

const (
	syslogRetry = time.Second // at most one attempt to connect in this time
	syslogLimit = 8000        // bytes of a message: what common daemons accept (8 KiB)
)

// Syslog sends messages to the local syslog daemon as datagrams of RFC 3164. It
// never waits: a message that the daemon does not take at once is dropped and
// counted, since a program that waits for its log misses its deadlines. The daemon
// may come, go and come back at any time.
type Syslog struct {
	facility int
	ident    string
	severity func(slog.Level) int
	warn     io.Writer
	path     string
	pid      int

	// The following is used by write only, whose calls do not overlap.
	fd      int // -1: not connected
	tried   time.Time
	lost    int
	warned  bool
	scratch []byte
}

// NewSyslog returns a sink for [LogOptions] that is not connected yet. facility is
// the number of RFC 3164 (16 to 23 for LOCAL0 to LOCAL7), severity gives that of a
// level, warn takes one line each time the daemon cannot be reached.
func NewSyslog(facility int, ident string, severity func(slog.Level) int, warn io.Writer) *Syslog {
	return &Syslog{
		facility: facility, ident: ident, severity: severity, warn: warn,
		path: syslogSocket, pid: os.Getpid(), fd: -1,
	}
}

func (s *Syslog) write(at time.Time, level slog.Level, text []byte) error {
	if len(text) > syslogLimit {
		text = text[:syslogLimit]
	}
	err := s.send(at, s.severity(level), text)
	if err != nil {
		s.lost++
		s.tell(err)
		return err
	}
	s.warned = false
	if s.lost > 0 {
		note := fmt.Sprintf("WARNING:  %d messages before this one could not be sent to syslog", s.lost)
		if s.send(at, s.severity(slog.LevelWarn), []byte(note)) == nil {
			s.lost = 0
		}
	}
	return nil
}

// tell warns once for each time that the daemon is away.
func (s *Syslog) tell(err error) {
	if s.warned || errors.Is(err, unix.EAGAIN) {
		return
	}
	s.warned = true
	fmt.Fprintf(s.warn, "WARNING:  could not send messages to syslog at %s: %v\n", s.path, err)
}

// send writes one datagram, on a new socket when the daemon was restarted.
func (s *Syslog) send(at time.Time, severity int, text []byte) error {
	s.scratch = fmt.Appendf(s.scratch[:0], "<%d>%s %s[%d]: ", s.facility<<3|severity, at.Format(time.Stamp), s.ident, s.pid)
	s.scratch = append(s.scratch, text...)
	if s.fd >= 0 {
		_, err := unix.Write(s.fd, s.scratch)
		if err == nil || errors.Is(err, unix.EAGAIN) {
			return err
		}
		_ = unix.Close(s.fd)
		s.fd, s.tried = -1, time.Time{}
	}
	if err := s.connect(at); err != nil {
		return err
	}
	_, err := unix.Write(s.fd, s.scratch)
	return err
}

func (s *Syslog) connect(now time.Time) error {
	if since := now.Sub(s.tried); since >= 0 && since < syslogRetry {
		return errors.New("not connected")
	}
	s.tried = now
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.path}); err != nil {
		_ = unix.Close(fd)
		return err
	}
	s.fd = fd
	return nil
}
