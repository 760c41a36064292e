// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// start starts conmgr in the background and waits for its primary.
func start(e env, d *conmgr.Directory, o options) int {
	if p, running, _ := d.Running(); running {
		return fail(e, fmt.Errorf("another conmgr is running in %s (PID: %d)", d.Path(), p.PID))
	}
	path, err := prepare(e, d)
	if err != nil {
		return fail(e, err)
	}
	return launch(e, d, o, path)
}

// prepare checks what would make a start fail: the configuration and the program.
// It returns the path of conmgr.
func prepare(e env, d *conmgr.Directory) (string, error) {
	_, warnings, err := conmgr.Load(d.ConfigPath())
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		warn(e, "%s", w)
	}
	return findConmgr(e)
}

// findConmgr returns the conmgr beside cm_ctl, of the same version.
func findConmgr(e env) (string, error) {
	self, err := e.executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), "conmgr")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("program conmgr is needed by %s, but is not in the same directory as %s", program, self)
	}
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w", path, err)
	}
	if got, want := strings.TrimSpace(string(out)), cli.VersionLine("conmgr"); got != want {
		return "", fmt.Errorf("%s is not of the same version as %s: expected %q, found %.80q", path, program, want, got)
	}
	return path, nil
}

// daemon is a conmgr that was just started.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it ended
	log    int64         // where its part of conmgr.log starts
}

// spawn starts conmgr in a session of its own, so that neither a closed terminal
// nor Ctrl-C reaches it, its output appended to conmgr.log.
func spawn(d *conmgr.Directory, path string) (*daemon, error) {
	log, err := os.OpenFile(d.LogPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open log %s: expected a regular file", d.LogPath())
	}
	cmd := exec.Command(path, "-D", d.Path())
	cmd.Dir = d.Path()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	c := &daemon{cmd: cmd, exited: make(chan struct{}), log: info.Size()}
	go c.await()
	return c, nil
}

// await ends with the daemon, or with cm_ctl, whichever is first.
func (c *daemon) await() {
	_ = c.cmd.Wait()
	close(c.exited)
}

func (c *daemon) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// launch starts conmgr and waits as the options say.
func launch(e env, d *conmgr.Directory, o options, path string) int {
	c, err := spawn(d, path)
	if err != nil {
		return fail(e, err)
	}
	if o.noWait {
		fmt.Fprintln(e.stdout, "conmgr is starting")
		return cli.ExitOK
	}
	what := "conmgr to connect to the primary's watchdog"
	if o.complete {
		what = "conmgr to connect to the watchdogs of all instances"
	}
	p := newProgress(e, what)
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	w := &startWatch{d: d, c: c, complete: o.complete}
	defer w.close()
	over := waitFor(e, p, o.timeout, func() bool { return w.look(ctx) })
	switch {
	case c.ended():
		p.stopped()
		return c.explain(e, d)
	case over:
		p.done()
		fmt.Fprintf(e.stdout, "conmgr started (PID: %d)\n", c.cmd.Process.Pid)
		return cli.ExitOK
	}
	p.stopped()
	return w.explain(e, o)
}

// explain says why conmgr ended at once: the end of what it wrote.
func (c *daemon) explain(e env, d *conmgr.Directory) int {
	fail(e, fmt.Errorf("conmgr ended (%s); these are the last lines of %s", c.cmd.ProcessState, d.LogPath()))
	for _, line := range tail(d.LogPath(), c.log) {
		fmt.Fprintln(e.stderr, "  "+cli.Printable(line))
	}
	return cli.ExitFailure
}

// tail returns the last lines of a file behind an offset.
func tail(path string, offset int64) []string {
	const lines, size = 10, 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		offset = max(offset, info.Size()-size)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, offset, size))
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return []string{"(nothing)"}
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return all[max(0, len(all)-lines):]
}

// startWatch looks whether a started conmgr has reached what is waited for.
type startWatch struct {
	d        *conmgr.Directory
	c        *daemon
	complete bool
	client   *client
	last     *table // the latest SHOW INSTANCES, nil before the first
	err      error  // of the latest look
}

// look reports that waiting is over: done, or conmgr ended.
func (w *startWatch) look(ctx context.Context) bool {
	if w.c.ended() {
		return true
	}
	if w.err != nil && ctx.Err() != nil {
		return false // out of time says less than the error before it
	}
	w.err = w.ask(ctx)
	return w.err == nil && ready(w.last, w.complete)
}

func (w *startWatch) ask(ctx context.Context) error {
	if w.client == nil {
		client, err := dial(ctx, w.d)
		if err != nil {
			return err
		}
		w.client = client
		if err := w.verify(ctx); err != nil {
			w.close()
			return err
		}
	}
	t, err := w.client.query(ctx, "SHOW INSTANCES")
	if err != nil {
		w.close()
		return err
	}
	w.last = t
	return nil
}

// verify makes sure that the started process answers and not another conmgr that
// was faster.
func (w *startWatch) verify(ctx context.Context) error {
	t, err := w.client.query(ctx, "SHOW STATUS")
	if err != nil {
		return err
	}
	pid := fmt.Sprint(w.c.cmd.Process.Pid)
	if len(t.rows) != 1 || t.text(0, "pid") != pid {
		return fmt.Errorf("another process than %s answers on %s", pid, w.d.SocketPath())
	}
	return nil
}

func (w *startWatch) close() {
	if w.client != nil {
		w.client.close()
		w.client = nil
	}
}

// ready reports that the primary, or with complete every instance, has an armed
// heartbeat.
func ready(t *table, complete bool) bool {
	monitored, primary := 0, false
	for i := range t.rows {
		if t.text(i, "monitoring") != conmgr.Monitored.String() {
			continue
		}
		monitored++
		primary = primary || t.text(i, "attribute") == conmgr.Primary.String()
	}
	if complete {
		return monitored > 0 && monitored == len(t.rows)
	}
	return primary
}

// explain says how far conmgr came in time.
func (w *startWatch) explain(e env, o options) int {
	fail(e, fmt.Errorf("not connected within %s; conmgr keeps running and trying (PID: %d)", o.timeout, w.c.cmd.Process.Pid))
	if w.last == nil {
		fmt.Fprintf(e.stderr, "  it does not answer yet: %v\n", w.err)
		return cli.ExitFailure
	}
	for i := range w.last.rows {
		fmt.Fprintln(e.stderr, "  "+describe(w.last, i))
	}
	return cli.ExitFailure
}

// describe is one instance in one line.
func describe(t *table, row int) string {
	line := fmt.Sprintf("instance %s (%s port %s): %s, heartbeat %s, %s",
		t.text(row, "number"), place(t, row), t.text(row, "port"),
		t.text(row, "monitoring"), t.text(row, "heartbeat"), t.text(row, "attribute"))
	if why := t.text(row, "why"); why != "" {
		line += ": " + why
	}
	return cli.Printable(line)
}

// place is the name of an instance, or its address when it has none.
func place(t *table, row int) string {
	if host := t.text(row, "host"); host != "" {
		return host
	}
	return t.text(row, "hostaddr")
}
