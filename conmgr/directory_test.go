// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

func mustOpenDirectory(t *testing.T) *Directory {
	t.Helper()
	path, err := os.MkdirTemp("", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	d, err := OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenDirectoryRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	open := filepath.Join(dir, "open")
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Mkdir(long, 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                           "expected -D or the environment variable CMDATA",
		filepath.Join(dir, "absent"): "no such file or directory",
		file:                         "expected a directory",
		open:                         "mode 0777 lets everybody write to it: expected 0700 or 0750",
		long:                         "expected at most 107",
	} {
		if _, err := OpenDirectory(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenDirectory(%s) = %v, want %s", path, err, want)
		}
	}
}

func TestOpenDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		agenttest.Skip(t, "root, to give a directory away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(dir); err == nil || !strings.Contains(err.Error(), "owner is user 12345: expected user 0") {
		t.Errorf("error %v", err)
	}
}

func TestClaimWritesThePIDFile(t *testing.T) {
	t.Parallel()
	d := mustOpenDirectory(t)
	if _, running, err := d.Running(); running || err != nil {
		t.Fatalf("an empty directory runs: %v", err)
	}
	started := time.Unix(1700000000, 0)
	if err := d.Claim(27546, started); err != nil {
		t.Fatal(err)
	}
	p, running, err := d.Running()
	if err != nil || !running || p.PID != os.Getpid() || p.Directory != d.Path() || p.Port != 27546 || !p.Started.Equal(started) {
		t.Errorf("pid file %+v, running %v, %v", p, running, err)
	}
	if info, err := os.Stat(d.PIDPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := d.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.PIDPath()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pid file after Release: %v", err)
	}
	if err := d.Release(); err != nil {
		t.Errorf("second Release: %v", err)
	}
}

// Of many that start at once exactly one wins. Locks belong to open files, so
// goroutines contend as processes do.
func TestClaimOneWins(t *testing.T) {
	t.Parallel()
	d := mustOpenDirectory(t)
	const starters = 16
	results := make([]error, starters)
	var wg sync.WaitGroup
	for i := range starters {
		wg.Go(func() {
			own := &Directory{path: d.path}
			results[i] = own.Claim(1, time.Now())
			if results[i] == nil {
				t.Cleanup(func() { _ = own.Release() })
			}
		})
	}
	wg.Wait()
	winners := 0
	for _, err := range results {
		switch {
		case err == nil:
			winners++
		case !errors.Is(err, ErrRunning):
			t.Errorf("loser: %v", err)
		}
	}
	if winners != 1 {
		t.Errorf("%d winners, want 1", winners)
	}
}

func TestStalePIDFilesAreRecognised(t *testing.T) {
	t.Parallel()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	own, err := processIdentity(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"dead process":  fmt.Sprintf("%d\n/d\n1\n1\n%s\n", dead.Process.Pid, own),
		"reused id":     fmt.Sprintf("%d\n/d\n1\n1\n%s0\n", os.Getppid(), own),
		"earlier boot":  fmt.Sprintf("%d\n/d\n1\n1\nboot%s\n", os.Getpid(), own[strings.IndexByte(own, ':'):]),
		"garbage":       "garbage",
		"four lines":    "1\n/d\n1\n1\n",
		"huge":          strings.Repeat("1\n", 100000),
		"negative":      "-1\n/d\n1\n1\nx\n",
		"not a port":    "1\n/d\n1\n65536\nx\n",
		"not a time":    "1\n/d\nx\n1\nx\n",
		"empty by full": "",
	} {
		d := mustOpenDirectory(t)
		if err := os.WriteFile(d.PIDPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, running, err := d.Running(); running {
			t.Errorf("%s: runs, %v", name, err)
		}
		if err := d.Claim(2, time.Now()); err != nil {
			t.Errorf("%s: Claim: %v", name, err)
		}
		if p, running, err := d.Running(); !running || p.PID != os.Getpid() || err != nil {
			t.Errorf("%s: after Claim %+v, %v", name, p, err)
		}
		_ = d.Release()
	}
}

// The lock file was removed by hand: the pid file of a live process still guards.
func TestClaimWithoutLockFile(t *testing.T) {
	t.Parallel()
	d := mustOpenDirectory(t)
	parent, err := processIdentity(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%d\n%s\n1\n1\n%s\n", os.Getppid(), d.path, parent)
	if err := os.WriteFile(d.PIDPath(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Claim(1, time.Now()); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), fmt.Sprint(os.Getppid())) {
		t.Errorf("Claim = %v", err)
	}
}

func TestZombieHasEnded(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	identity, err := processIdentity(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p := PIDFile{PID: cmd.Process.Pid, Process: identity}
	if !p.Alive() {
		t.Error("a sleeping process is not alive")
	}
	_ = cmd.Process.Kill()
	deadline := time.Now().Add(10 * time.Second)
	for p.Alive() && time.Now().Before(deadline) {
	}
	if p.Alive() {
		t.Error("a killed process that nobody waited for is alive")
	}
	_ = cmd.Wait()
}

func TestID(t *testing.T) {
	t.Parallel()
	d := mustOpenDirectory(t)
	first, err := d.ID()
	if err != nil || first == [16]byte{} {
		t.Fatalf("ID = %x, %v", first, err)
	}
	path := filepath.Join(d.Path(), idName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if second, err := d.ID(); second != first || err != nil {
		t.Errorf("second ID = %x, %v, want %x", second, err, first)
	}
	for _, damaged := range []string{"", "xyz\n", strings.Repeat("0", 30), strings.Repeat("0", 34), strings.Repeat("0", 5000)} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ID(); err == nil || !strings.Contains(err.Error(), idName) {
			t.Errorf("damaged by %.40q: %v", damaged, err)
		}
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	t.Parallel()
	d := mustOpenDirectory(t)
	for _, text := range []string{"a longer text", "short"} {
		if err := d.WriteFile("f", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := d.ReadFile("f", 100); string(got) != text || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if _, err := d.ReadFile("f", 3); err == nil || !strings.Contains(err.Error(), "expected at most 3 bytes") {
		t.Errorf("limit: %v", err)
	}
	entries, err := os.ReadDir(d.Path())
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
