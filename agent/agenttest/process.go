// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Cmd is an exec.Cmd that runs inside a host, in a session of its own and in the
// host's control group; it dies with the lab's owner. Set its
// fields as those of exec.Cmd before it starts.
type Cmd struct {
	*exec.Cmd
	// User is the system user to run as; empty is root.
	User string

	host *Host
}

// Command prepares a program inside the host. When ctx ends, its whole process
// group is killed.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), host: h}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	return c
}

// Start starts the program and does not wait for it.
func (c *Cmd) Start() error {
	group, err := os.Open(string(c.host.cgroup))
	if err != nil {
		return err
	}
	defer group.Close()
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	attr := c.SysProcAttr
	// A session of its own, as a service has: where the kernel shares time out by
	// session (sched(7), autogroup), none pays for what another one does.
	attr.Setsid = true
	attr.Pdeathsig = syscall.SIGKILL
	attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	if c.User != "" {
		uid, gid, err := lookupUser(c.User)
		if err != nil {
			return err
		}
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	if err := c.host.space.call(c.Cmd.Start); err != nil {
		return fmt.Errorf("start %s on %s: %w", c.Path, c.host.Name, err)
	}
	return nil
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output. An error holds
// what it wrote to stderr.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// CombinedOutput runs the program and returns both its outputs.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Spec says how to start a long-running process.
type Spec struct {
	Name string   // what people call it; the log is named after it
	Path string   // the program
	Args []string // without the program's name
	User string   // system user; empty is root
	Env  []string // added to the environment of the caller
	Dir  string   // working directory; empty is that of the caller
}

// Process is a running program of a host. Its methods may be called
// concurrently.
type Process struct {
	// Name is the one of the Spec.
	Name string
	// LogPath is the file that holds stdout and stderr of this process and of
	// those started before it on the host by the same name.
	LogPath string

	host *Host
	cmd  *Cmd
	done chan struct{}
	err  error // of Wait; valid when done is closed
}

// Start starts a process that ends with the lab at the latest.
func (h *Host) Start(spec Spec) (*Process, error) {
	p := &Process{
		Name: spec.Name, host: h, done: make(chan struct{}),
		LogPath: filepath.Join(h.lab.Dir, "log", h.Name+"-"+spec.Name+".log"),
	}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = h.Command(context.Background(), spec.Path, spec.Args...)
	p.cmd.User, p.cmd.Dir = spec.User, spec.Dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if len(spec.Env) > 0 {
		p.cmd.Env = append(os.Environ(), spec.Env...)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.closed {
		return nil, errSpaceClosed
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	h.lab.processes = append(h.lab.processes, p)
	go p.reap()
	return p, nil
}

func (p *Process) reap() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid is the process id, valid until Done.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end of the process; nil means exit code 0, and
// *exec.ExitError another end.
func (p *Process) Wait(ctx context.Context) error {
	if err := p.wait(ctx); err != nil {
		return err
	}
	return p.err
}

// wait waits for the end, whichever it is.
func (p *Process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s on %s: %w", p.Name, p.host.Name, ctx.Err())
	}
}

// Signal sends a signal to the process alone, not to its children. A process
// that has ended is os.ErrProcessDone.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process (not its children) as kill -9 does, and waits.
func (p *Process) Kill(ctx context.Context) (Effect, error) {
	return timed(func() error {
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return p.wait(ctx)
	})
}

// Stop asks the process to end with SIGTERM and waits for it.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait(ctx)
}

// Pause stops the process with SIGSTOP and returns when all of it stands still;
// Resume lets it go on.
func (p *Process) Pause() (Effect, error) {
	return timed(func() error {
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		// A thread that runs on another processor stops a moment later.
		return poll(context.Background(), 10*time.Second, "the stop of "+p.Name, p.stopped)
	})
}

// stopped reports whether every thread of the process is.
func (p *Process) stopped() (bool, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid()))
	if err != nil || len(files) == 0 || !p.Running() {
		return false, errors.Join(err, fmt.Errorf("%s ends instead of stopping", p.Name))
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // that thread has ended
		}
		// proc(5): the state stands behind the name in parentheses.
		if i := bytes.LastIndexByte(stat, ')'); i < 0 || !bytes.HasPrefix(stat[i:], []byte(") T")) {
			return false, nil
		}
	}
	return true, nil
}

// Resume ends Pause.
func (p *Process) Resume() (Effect, error) {
	return timed(func() error { return p.Signal(syscall.SIGCONT) })
}

// Log returns what the process has written so far.
func (p *Process) Log() (string, error) {
	text, err := os.ReadFile(p.LogPath)
	return string(text), err
}

// Process returns the process that Start has started last by that name, or an
// error that tells the names there are.
func (h *Host) Process(name string) (*Process, error) {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	var names []string
	for _, p := range slices.Backward(h.lab.processes) {
		if p.host != h {
			continue
		}
		if p.Name == name {
			return p, nil
		}
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return nil, fmt.Errorf("no process %q on %s: expected one of %q", name, h.Name, names)
}
