// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	suite = "bookworm"
	// mirror serves the suite, unless CM_BOOT_MIRROR says another one.
	mirror = "http://deb.debian.org/debian"
	// included is what a machine has from the beginning: what a small server has.
	included = "systemd,systemd-sysv,dbus,iproute2,ca-certificates,procps,man-db"
)

// downloaded are the packages that the machines install by themselves later. They have
// no way out of the lab, so apt has them in its cache.
var downloaded = []string{"postgresql", "postgresql-client"}

// network configures the interface of a machine; the address is its own.
const network = "[Match]\nName=host0\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"

// mustTree returns the tree of all machines, which is read only from then on. The
// first call for a recipe makes it.
func mustTree(t *testing.T) string {
	t.Helper()
	from := os.Getenv("CM_BOOT_MIRROR")
	if from == "" {
		from = mirror
	}
	recipe := sha256.Sum256([]byte(strings.Join(append(slices.Clone(downloaded), suite, from, included, "1"), " ")))
	cache := filepath.Join(mustTop(t), ".cache", "boot")
	tree := filepath.Join(cache, fmt.Sprintf("%s-%x", suite, recipe[:4]))
	if _, err := os.Stat(tree); err == nil {
		return tree
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	t.Logf("making %s with debootstrap: this takes some minutes, once", tree)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	unfinished, err := os.MkdirTemp(cache, "unfinished-")
	if err == nil {
		err = makeTree(t.Context(), unfinished, from)
	}
	if err == nil {
		err = os.Rename(unfinished, tree)
	}
	if err != nil {
		_ = os.RemoveAll(unfinished)
		t.Fatalf("make tree: %v", err)
	}
	return tree
}

func makeTree(ctx context.Context, dir, from string) error {
	if err := tool(ctx, "debootstrap", "--variant=minbase", "--include="+included, suite, dir, from); err != nil {
		return err
	}
	for _, args := range [][]string{
		append([]string{"apt-get", "install", "-y", "--no-install-recommends", "--download-only"}, downloaded...),
		{"systemctl", "enable", "systemd-networkd"},
		{"systemctl", "mask", "systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"},
	} {
		if err := tool(ctx, "chroot", append([]string{dir}, args...)...); err != nil {
			return err
		}
	}
	for _, name := range []string{"etc/hostname", "etc/machine-id"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Chmod(dir, 0o755)
}

// tool runs a program of the host.
func tool(ctx context.Context, name string, args ...string) error {
	_, err := toolOutput(ctx, name, args...)
	return err
}

func toolOutput(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// mustTop returns the top of the module.
func mustTop(t *testing.T) string {
	t.Helper()
	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return top
}
