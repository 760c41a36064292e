// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// onChecked takes the outcome of a check.
func (w *watch) onChecked(out outcome) {
	w.checking = false
	w.stopCheck()
	w.monitor.reached.Store(out.err == nil)
	if out.connected != nil {
		w.onConnected(out.connected)
	}
	switch {
	case out.err != nil:
		w.onFailed(out.err)
	case w.postmaster != nil && w.postmaster.ended(): // it died behind this answer
		w.onDied(w.postmaster)
	default:
		w.backoff = minBackoff
		w.met = true
		w.solved("check")
		w.facts.onCheck(out.seen)
		w.due = w.due.Min(w.begun.Add(w.interval())) // which may be another one now
	}
	w.onSettings(out)
	if out.released {
		w.release()
	}
}

func (w *watch) onFailed(err error) {
	if w.ctx.Err() != nil {
		return
	}
	if errors.Is(err, context.Canceled) { // by onDied, which knew better
		w.due = clock.Now().Add(minBackoff)
		return
	}
	kind := classify(err)
	w.facts.onFailure(kind, w.postmaster != nil && !w.postmaster.ended())
	w.due = clock.Now().Add(w.backoff)
	w.backoff = min(2*w.backoff, maxBackoff)
	level := slog.LevelError
	switch kind {
	case failRefused, failNotYet, failHung:
		if w.met {
			return // the change of state is logged
		}
		level = slog.LevelWarn // never so far: is the dsn right?
	case failFull, failLost:
		level = slog.LevelWarn
	}
	w.complain(level, "check", "cannot check the instance", err, "address", w.address)
}

func (w *watch) onSettings(out outcome) {
	if out.settingErr != nil {
		w.complain(slog.LevelError, "settings", "cannot read the settings of the instance", out.settingErr)
	}
	if out.settings == nil {
		return
	}
	w.solved("settings")
	out.settings.Inherit(w.earlier)
	w.earlier = out.settings
	if w.monitor.options.OnSettings != nil {
		w.monitor.options.OnSettings(out.settings)
	}
}

func (w *watch) onConnected(c *connected) {
	w.unwatchPostmaster()
	switch {
	case c.postmaster != nil:
		w.postmaster = c.postmaster
		w.group.Go(func() { w.awaitDeath(c.postmaster) })
		w.solved("postmaster")
	default:
		w.complain(slog.LevelWarn, "postmaster", "cannot watch the postmaster process: its death is noticed by the next check; expected a dsn with a socket directory",
			c.postmasterErr, "address", w.address)
	}
	w.watchDirectory(c)
	if w.monitor.options.OnRights != nil {
		w.monitor.options.OnRights(c.role, c.rights)
	}
	if w.monitor.options.OnDirectory != nil {
		w.monitor.options.OnDirectory(c.dataDirectory)
	}
}

func (w *watch) awaitDeath(p *postmaster) {
	if p.wait() != nil {
		return
	}
	select {
	case w.died <- p:
	case <-w.ctx.Done():
	}
}

// onDied: the postmaster ended, and with it every session.
func (w *watch) onDied(p *postmaster) {
	if p != w.postmaster {
		return // of an earlier life
	}
	w.unwatchPostmaster()
	w.facts.onDeath()
	w.released = false
	w.stopCheck()
	w.backoff = minBackoff
	w.due = clock.Now().Add(minBackoff)
}

func (w *watch) unwatchPostmaster() {
	if w.postmaster != nil {
		w.postmaster.close()
		w.postmaster = nil
	}
}

// watchDirectory begins to watch postmaster.pid, or goes on.
func (w *watch) watchDirectory(c *connected) {
	if w.pidFile != nil && w.directory == c.dataDirectory {
		return
	}
	w.unwatchPidFile()
	err := errors.New("the role may not read data_directory: GRANT pg_monitor TO " + c.role)
	if c.dataDirectory != "" {
		w.pidFile, err = watchPidFile(c.dataDirectory)
	}
	if err != nil {
		w.complain(slog.LevelWarn, "directory", "cannot watch the data directory: a promotion is noticed by checks only", err)
		return
	}
	w.directory = c.dataDirectory
	w.solved("directory")
	f := w.pidFile
	w.group.Go(func() { w.awaitTouches(f) })
}

// touch is a write to postmaster.pid, or with err the end of watching it.
type touch struct {
	by  *pidFileWatch
	err error
}

func (w *watch) awaitTouches(f *pidFileWatch) {
	for {
		err := f.wait()
		select {
		case w.touched <- touch{f, err}:
		case <-w.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (w *watch) unwatchPidFile() {
	if w.pidFile != nil {
		w.pidFile.close()
		w.pidFile, w.directory = nil, ""
	}
}

// onTouched: postmaster.pid was written, created or removed.
func (w *watch) onTouched(t touch) {
	if t.by != w.pidFile {
		return // of an earlier directory
	}
	if t.err != nil { // the next connect watches anew
		w.unwatchPidFile()
		return
	}
	if w.postmaster != nil && isStopping(filepath.Join(w.directory, pidFile)) {
		w.facts.onStopping()
	}
	now := clock.Now()
	w.backoff = minBackoff
	w.pending = make([]mono.Instant, len(burst))
	for i, after := range burst {
		w.pending[i] = now.Add(after)
	}
}

// isStopping reads the status line of postmaster.pid (src/include/utils/pidfile.h,
// LOCK_FILE_LINE_PM_STATUS).
func isStopping(path string) bool {
	data, err := os.ReadFile(path)
	lines := strings.Split(string(data), "\n")
	return err == nil && len(lines) >= 8 && strings.TrimSpace(lines[7]) == "stopping"
}

// release: a smart shutdown waits for nobody but the agent.
func (w *watch) release() {
	w.released = true
	w.log.Info("leaving the instance, which shuts down and waits for no other session")
	if w.monitor.options.OnRelease != nil {
		w.monitor.options.OnRelease()
	}
}

// onKnocked takes the answer of a door. Nobody listening is no verdict about the
// postmaster: the check will tell.
func (w *watch) onKnocked(err error) {
	w.knocking = false
	if w.ctx.Err() != nil {
		return
	}
	if err != nil && classify(err) == failRefused {
		w.due = clock.Now()
		w.doorDue = clock.Now().Add(w.wishes.timing.accept)
		return
	}
	w.facts.onDoor(err == nil)
	w.doorDue = clock.Now().Add(w.wishes.timing.accept)
	if err != nil { // again at once, so that the return is seen at once
		w.doorDue = clock.Now()
		w.spaceDoor(min(w.wishes.timing.acceptTimeout, w.wishes.timing.accept))
	}
}
