// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// BinEnv names a directory that has the module's programs already: for machines
// without a compiler.
const BinEnv = "CM_TEST_BIN"

// Build compiles the module's programs (static) into its bin directory and
// returns that. The caller's working directory must be inside the module. A process
// compiles once: what go build takes to find nothing to do is a third of what a lab
// takes.
func Build(ctx context.Context) (dir string, err error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		return dir, nil
	}
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		built.dir, err = build(ctx)
	}
	return built.dir, err
}

// built is the directory that Build has filled, empty before.
var built struct {
	sync.Mutex // guards the following
	dir        string
}

func build(ctx context.Context) (dir string, err error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(root, ".cache", "build.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(root, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := runTool(ctx, "", "env", "CGO_ENABLED=0", "go", "-C", root, "build", "-o", dir+"/", "./cmd/..."); err != nil {
		return "", err
	}
	return dir, nil
}

// ModuleRoot is the directory of the go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the working directory is in no Go module")
		}
	}
}

// Binary puts a copy of one of the module's programs into the lab, where every
// system user can run it, and returns its path. The programs are built before
// the lab's first one.
func (l *Lab) Binary(ctx context.Context, name string) (string, error) {
	l.binaries.Lock()
	defer l.binaries.Unlock()
	path := filepath.Join(l.Dir, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := Build(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	_, err = runTool(ctx, "", "install", "-m", "0755", filepath.Join(dir, name), path)
	return path, err
}

// WatchdogOptions says how to start pgwatchdog beside an instance.
type WatchdogOptions struct {
	// Conf are watchdog.* settings to write to postgresql.conf before.
	Conf map[string]string
	// File is the content of pgwatchdog.conf; empty starts it without one.
	File string
	// DSN replaces the instance's own one.
	DSN string
	// User is the system user to run as; empty is root.
	User string
	// Args are added to the command line.
	Args []string
}

// WatchdogRunDir is where the agents of a host tell the SQL extension what it shows,
// as /run/pgconmgr of a real one. They all run as one user.
func (h *Host) WatchdogRunDir() string { return filepath.Join(h.lab.Dir, h.Name, "run-pgconmgr") }

// StartWatchdog starts pgwatchdog on the instance's host. Its state directory
// is kept for the next start.
func (p *Postgres) StartWatchdog(ctx context.Context, o WatchdogOptions) (*Process, error) {
	path, err := p.Host.lab.Binary(ctx, "pgwatchdog")
	if err != nil {
		return nil, err
	}
	if len(o.Conf) > 0 {
		if err := errors.Join(p.SetConf(o.Conf), p.Reload()); err != nil {
			return nil, err
		}
	}
	if _, err := p.Host.Mkdir(o.User, p.Name, "watchdog"); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := p.Host.mkRunDir(o.User); err != nil {
		return nil, err
	}
	state := filepath.Join(p.Host.lab.Dir, p.Host.Name, p.Name, "watchdog")
	if o.DSN == "" {
		o.DSN = p.DSN()
	}
	args := []string{"--dsn", o.DSN, "--state-dir", state, "--run-dir", p.Host.WatchdogRunDir()}
	if o.File != "" {
		file := filepath.Join(filepath.Dir(state), "pgwatchdog.conf")
		if err := os.WriteFile(file, []byte(o.File), 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--config", file)
	}
	return p.Host.Start(Spec{
		Name: p.Name + "-watchdog", Path: path, Args: append(args, o.Args...), User: o.User, Dir: "/",
	})
}

// mkRunDir makes the directory of WatchdogRunDir, which everybody can read.
func (h *Host) mkRunDir(owner string) error {
	path, err := h.Mkdir(owner, filepath.Base(h.WatchdogRunDir()))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return errors.Join(err, os.Chmod(path, 0o755))
}

// ConmgrOptions says how to start conmgr.
type ConmgrOptions struct {
	// Name tells several on one host apart; empty is "conmgr".
	Name string
	// User is the system user to run as; empty is nobody. It cannot be root.
	User string
	// Instances are the ones to watch, numbered in this order.
	Instances []*Postgres
	// Params are added to conmgr.conf. A value stands there as it is: quote
	// strings.
	Params map[string]string
}

// Conmgr is a conmgr's directory on a host and the process started last.
type Conmgr struct {
	Host *Host
	// Dir is its directory, of mode 0700 and owned by User.
	Dir, User string
	// Process is the one that Start has started; one that cm_ctl has started is
	// known to its pid file only.
	Process *Process

	name string
}

// NewConmgr makes a directory with its conmgr.conf and starts nothing.
func (h *Host) NewConmgr(o ConmgrOptions) (c *Conmgr, err error) {
	c = &Conmgr{Host: h, User: o.User, name: o.Name}
	if c.User == "" {
		c.User = "nobody"
	}
	if c.name == "" {
		c.name = "conmgr"
	}
	if c.Dir, err = h.Mkdir(c.User, c.name); err != nil {
		return nil, err
	}
	return c, c.Configure(o.Instances, o.Params)
}

// Configure replaces conmgr.conf.
func (c *Conmgr) Configure(instances []*Postgres, params map[string]string) error {
	var b strings.Builder
	for i, p := range instances {
		fmt.Fprintf(&b, "backend_hostaddr%d = '%v'\nbackend_port%d = %d\n", i, p.Host.Addr4, i, p.Port)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&b, "%s = %s\n", name, params[name])
	}
	path := filepath.Join(c.Dir, "conmgr.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	uid, gid, err := lookupUser(c.User)
	if err != nil {
		return err
	}
	return os.Chown(path, int(uid), int(gid))
}

// Start runs conmgr in the foreground, as systemd does.
func (c *Conmgr) Start(ctx context.Context) error {
	path, err := c.Host.lab.Binary(ctx, "conmgr")
	if err != nil {
		return err
	}
	c.Process, err = c.Host.Start(Spec{
		Name: c.name, Path: path, Args: []string{"-D", c.Dir}, User: c.User, Dir: "/",
	})
	return err
}

// Ctl runs cm_ctl with the given arguments and -D for this directory, and
// returns what it wrote to both outputs. It has a minute.
func (c *Conmgr) Ctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	path, err := c.Host.lab.Binary(ctx, "cm_ctl")
	if err != nil {
		return "", err
	}
	// cm_ctl start runs the conmgr that lies beside it or in PATH.
	if _, err := c.Host.lab.Binary(ctx, "conmgr"); err != nil {
		return "", err
	}
	cmd := c.Host.Command(ctx, path, append(args, "-D", c.Dir)...)
	cmd.User, cmd.Dir = c.User, "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("cm_ctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
