// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// errNotRunning says that there is nothing to stop.
var errNotRunning = errors.New("no conmgr is running")

// stop ends conmgr.
func stop(e env, d *conmgr.Directory, o options) int {
	p, err := running(d)
	if err == nil {
		err = end(e, d, p, o.mode, o)
	}
	if err != nil {
		return fail(e, err)
	}
	if o.noWait {
		fmt.Fprintln(e.stdout, "conmgr is shutting down")
	} else {
		fmt.Fprintln(e.stdout, "conmgr stopped")
	}
	return cli.ExitOK
}

// restart ends conmgr, telling its applications and watchdogs to wait for the next
// one, and starts it again. What would make the start fail is found before.
func restart(e env, d *conmgr.Directory, o options) int {
	path, err := prepare(e, d)
	if err != nil {
		return fail(e, err)
	}
	p, err := running(d)
	switch {
	case errors.Is(err, errNotRunning):
		warn(e, "%v; starting it", err)
	case err != nil:
		return fail(e, err)
	default:
		wait := o
		wait.noWait = false // the next one cannot start before this one is gone
		if err := end(e, d, p, "restart", wait); err != nil {
			return fail(e, err)
		}
	}
	return launch(e, d, o, path)
}

func running(d *conmgr.Directory) (conmgr.PIDFile, error) {
	p, alive, err := d.Running()
	switch {
	case err != nil:
		return p, err
	case p.PID == 0:
		return p, fmt.Errorf("%w in %s: %s does not exist", errNotRunning, d.Path(), d.PIDPath())
	case !alive:
		return p, fmt.Errorf("%w in %s: the process of %s (PID: %d) has ended", errNotRunning, d.Path(), d.PIDPath(), p.PID)
	}
	return p, nil
}

// end asks conmgr to shut down and, unless told not to, waits until its process is
// gone. mode is a stop mode or restart.
func end(e env, d *conmgr.Directory, p conmgr.PIDFile, mode string, o options) error {
	if err := request(e, d, p, mode); err != nil {
		return err
	}
	if o.noWait {
		return nil
	}
	bar := newProgress(e, "conmgr to shut down")
	if waitFor(e, bar, o.timeout, func() bool { return !p.Alive() }) {
		bar.done()
		return nil
	}
	bar.stopped()
	err := fmt.Errorf("conmgr did not stop within %s (PID: %d)", o.timeout, p.PID)
	if mode == "smart" {
		err = fmt.Errorf("%w: it waits for its applications to leave; -m fast disconnects them", err)
	}
	return err
}

// request sends the command over conmgr.sock, and a signal when nobody answers
// there.
func request(e env, d *conmgr.Directory, p conmgr.PIDFile, mode string) error {
	err := command(d, mode)
	if err == nil || !p.Alive() {
		return nil
	}
	if mode == "smart" {
		return fmt.Errorf("%w; only -m fast and -m immediate can do without", err)
	}
	sig := unix.SIGTERM
	if mode == "immediate" {
		sig = unix.SIGQUIT
	}
	warn(e, "%v; sending signal %s", err, unix.SignalName(sig))
	return send(p, sig)
}

func command(d *conmgr.Directory, mode string) error {
	ctx := context.Background()
	c, err := dial(ctx, d)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.query(ctx, "SHUTDOWN "+strings.ToUpper(mode))
	if accepted(err) {
		return nil
	}
	return err
}

// accepted reports whether an answer to SHUTDOWN means that conmgr obeys: it may
// be gone before its answer was sent.
func accepted(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code == "57P01" // admin_shutdown
	}
	return !errors.Is(err, errNoAnswer)
}

// send signals the very process of a pid file: the descriptor holds the process
// before it is compared, so the id cannot go to another one in between
// (pidfd_open(2), Linux 5.3).
func send(p conmgr.PIDFile, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		if !p.Alive() {
			return nil
		}
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send signal %s to conmgr (PID: %d): %w", unix.SignalName(sig), p.PID, err)
	}
	return nil
}
