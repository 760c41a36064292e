// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// needs are the programs that the tests cannot do without.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	agenttest.NeedRoot(t)
	for _, name := range programs {
		agenttest.NeedTool(t, name)
	}
}

// buildPackages builds the packages of a source, of a version if one is given, into a
// directory.
func buildPackages(source, version, dir string) error {
	cmd := exec.Command("scripts/deb/build.sh", dir)
	cmd.Dir = source
	// A copy does not know the source's time. It must be past: files that are older than
	// it keep their own.
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build packages: %w\n%s", err, out)
	}
	return nil
}

// shared is the directory for what several tests use; it ends with the last of them.
var shared string

// built are the packages that most tests are about.
var built = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(shared, "deb")
	return dir, buildPackages(filepath.Join("..", ".."), "", dir)
})

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "pgconmgr-boot-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(shared)
	os.Exit(code)
}

// mustPackages returns the directory of this source's packages.
func mustPackages(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// mustOtherPackages builds packages of another place or version, and returns their
// directory.
func mustOtherPackages(t *testing.T, source, version string) string {
	t.Helper()
	dir := t.TempDir()
	if err := buildPackages(source, version, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustDebs(t *testing.T, dir string) []string {
	t.Helper()
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 3 {
		t.Fatalf("packages %v, %v", debs, err)
	}
	return debs
}

// The same source gives the same bytes, wherever it lies.
func TestPackagesAreReproducible(t *testing.T) {
	needs(t, "dpkg-buildpackage", "dh", "tar")
	elsewhere := filepath.Join(t.TempDir(), "a", "longer", "path")
	if err := os.MkdirAll(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	const copied = `tar -C "$1" --exclude=./.git --exclude=./.cache --exclude=./bin -cf - . | tar -C "$2" -xf -`
	if err := tool(t.Context(), "sh", "-c", copied, "sh", mustTop(t), elsewhere); err != nil {
		t.Fatal(err)
	}
	first, second := mustDebs(t, mustPackages(t)), mustDebs(t, mustOtherPackages(t, elsewhere, ""))
	if len(first) != len(second) {
		t.Fatalf("built %v, then %v", first, second)
	}
	for i := range first {
		a, b := mustSum(t, first[i]), mustSum(t, second[i])
		if filepath.Base(first[i]) != filepath.Base(second[i]) || a != b {
			t.Errorf("%s: %x, then %s: %x", first[i], a, second[i], b)
		}
	}
}

func mustSum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(text)
}

func TestLintianFindsNothing(t *testing.T) {
	needs(t, "dpkg-buildpackage", "dh", "lintian")
	args := append([]string{"--allow-root", "--fail-on", "error,warning"}, mustDebs(t, mustPackages(t))...)
	if out, err := exec.CommandContext(t.Context(), "lintian", args...).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// Programs are static, and every other file lies where a package may put it.
func TestInstallGoesWhereItIsTold(t *testing.T) {
	needs(t, "make")
	root := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "-s", "build", "man", "install", "BIN="+t.TempDir(), "DESTDIR="+root, "PREFIX=/opt/pgconmgr", "PGDIRS=/pg/extension")
	cmd.Dir = mustTop(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	for _, path := range []string{
		"opt/pgconmgr/bin/conmgr", "opt/pgconmgr/bin/cm_ctl", "opt/pgconmgr/bin/pgwatchdog", "opt/pgconmgr/bin/agentctl",
		"opt/pgconmgr/share/man/man8/pgwatchdog.8", "opt/pgconmgr/share/pgconmgr/role.sql", "pg/extension/watchdog.control",
	} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	unit, err := os.ReadFile(filepath.Join(root, "opt/pgconmgr/lib/systemd/system/pgwatchdog@.service"))
	if err != nil || !bytes.Contains(unit, []byte("ExecStart=/opt/pgconmgr/bin/pgwatchdog ")) {
		t.Errorf("unit: %v\n%s", err, unit)
	}
	out, err := exec.CommandContext(t.Context(), "ldd", filepath.Join(root, "opt/pgconmgr/bin/conmgr")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not a dynamic executable") {
		t.Errorf("conmgr is not static: %s", out)
	}
}

// README's commands for packages are those that the machines are set up with.
func TestReadmeTellsWhatIsProven(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(mustTop(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var scripts []byte
	for _, name := range []string{"db.sh", "client.sh"} {
		text, err := os.ReadFile(filepath.Join(mustTop(t), "vagrant", name))
		if err != nil {
			t.Fatal(err)
		}
		scripts = append(scripts, text...)
	}
	_, section, ok := strings.Cut(string(readme), "<!-- packages: begin -->")
	section, _, _ = strings.Cut(section, "<!-- packages: end -->")
	if !ok {
		t.Skip("README has no lines between <!-- packages: begin --> and <!-- packages: end -->")
	}
	commands := 0
	for line := range strings.Lines(section) {
		command, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !found || strings.HasPrefix(command, "#") {
			continue
		}
		commands++
		command, _, _ = strings.Cut(command, "   #")
		if want := strings.Replace(strings.TrimSpace(command), "apt install", "apt_install", 1); !strings.Contains(string(scripts), want) {
			t.Errorf("README tells %q, which neither db.sh nor client.sh does", command)
		}
	}
	if commands < 5 {
		t.Errorf("README tells %d commands, want at least 5", commands)
	}
}

func TestVagrantfileIsRuby(t *testing.T) {
	needs(t, "ruby")
	out, err := exec.CommandContext(t.Context(), "ruby", "-wc", filepath.Join(mustTop(t), "vagrant", "Vagrantfile")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "Syntax OK" {
		t.Errorf("Vagrantfile: %v\n%s", err, out)
	}
}
