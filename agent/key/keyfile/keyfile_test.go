// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
)

const (
	lineA = "a 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
	lineB = "b 1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100 192.0.2.0/24\n"
)

func mustWrite(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustBe(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("%s holds %q, %v; want %q", path, text, err, want)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o600, 0o400, 0o700} {
		r, err := Load(mustWrite(t, lineA+lineB, mode))
		if err != nil || len(r.Keys()) != 2 || r.First().String() != "a" {
			t.Errorf("mode %o: %v %v", mode, r, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(mustWrite(t, lineA, 0o600), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(link); err != nil {
		t.Errorf("symbolic link: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"missing", filepath.Join(t.TempDir(), "no"), "key file PATH: no such file or directory"},
		{"group reads", mustWrite(t, lineA, 0o640), "key file PATH: others have access (mode 0640): expected 0600 or less; use: chmod 600 PATH"},
		{"others read", mustWrite(t, lineA, 0o604), "key file PATH: others have access (mode 0604)"},
		{"group writes", mustWrite(t, lineA, 0o620), "key file PATH: others have access (mode 0620)"},
		{"directory", t.TempDir(), "key file PATH: expected a regular file"},
		{"pipe", fifo, "key file PATH: expected a regular file"},
		{"device", "/dev/zero", "key file PATH: expected a regular file"},
		{"empty", mustWrite(t, "", 0o600), "PATH: no key in it"},
		{"bad line", mustWrite(t, "# a\na secret\n", 0o600), "PATH:2: secret: expected 64 to 256 hex digits"},
		{"too large", mustWrite(t, lineA+strings.Repeat("#", key.MaxFile), 0o600), "PATH: expected at most 65536 bytes"},
	} {
		want := strings.ReplaceAll(tt.want, "PATH", tt.path)
		if r, err := Load(tt.path); r != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", tt.name, err, want)
		}
	}
}

// stated is a file of another user.
type stated struct {
	mode fs.FileMode
	uid  uint32
}

func (s stated) Name() string       { return "keys" }
func (s stated) Size() int64        { return 1 }
func (s stated) Mode() fs.FileMode  { return s.mode }
func (s stated) ModTime() time.Time { return time.Time{} }
func (s stated) IsDir() bool        { return s.mode.IsDir() }
func (s stated) Sys() any           { return &syscall.Stat_t{Uid: s.uid} }

func TestOwner(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file stated
		euid int
		want string
	}{
		{stated{0o600, 1000}, 1000, ""},
		{stated{0o600, 0}, 1000, ""},
		{stated{0o600, 0}, 0, ""},
		{stated{0o600, 1001}, 1000, "keys: belongs to user id 1001: expected user id 1000 or root"},
		{stated{0o600, 1001}, 0, "keys: belongs to user id 1001: expected user id 0 or root"},
		{stated{0o640, 0}, 1000, "keys: others have access (mode 0640)"},
	} {
		err := checkFile("keys", tt.file, tt.euid)
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v for user %d: %v, want %s", tt.file, tt.euid, err, tt.want)
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	if err := Create(path, lineA); err != nil {
		t.Fatal(err)
	}
	mustBe(t, path, lineA)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	if err := Create(path, lineB); err == nil || !strings.Contains(err.Error(), "exists and is not overwritten") {
		t.Errorf("created again: %v", err)
	}
	mustBe(t, path, lineA)
	link := path + ".link"
	if err := os.Symlink(path+".target", link); err != nil {
		t.Fatal(err)
	}
	if err := Create(link, lineA); err == nil {
		t.Error("created through a symbolic link")
	}
	if err := Create(path+".bad", "no key\n"); err == nil {
		t.Error("created without a key")
	}
	for _, absent := range []string{path + ".target", path + ".bad"} {
		if _, err := os.Lstat(absent); err == nil {
			t.Errorf("%s was left behind", absent)
		}
	}
	if err := Create(filepath.Join(path, "x"), lineA); err == nil || !strings.HasSuffix(err.Error(), "/x: not a directory") {
		t.Errorf("below a file: %v", err)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	path := mustWrite(t, "# mine\n"+strings.TrimSpace(lineA), 0o600)
	r, err := Append(path, lineB)
	if err != nil || len(r.Keys()) != 2 || r.First().String() != "a" {
		t.Fatalf("%v %v", r, err)
	}
	all := "# mine\n" + lineA + lineB
	mustBe(t, path, all)
	if _, err := Append(path, lineB); err == nil || err.Error() != path+":4: key id b stands in the file twice" {
		t.Errorf("twice: %v", err)
	}
	if _, err := Append(path, "c short\n"); err == nil {
		t.Error("added without a secret")
	}
	mustBe(t, path, all)
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(t.TempDir(), "no"), "no such file or directory"},
		{mustWrite(t, lineA, 0o644), "chmod 600"},
		{mustWrite(t, "", 0o600), "no key in it"},
	} {
		if _, err := Append(tt.path, lineB); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// Of two that add the same id at the same time, one wins.
func TestAppendAtOnce(t *testing.T) {
	t.Parallel()
	path := mustWrite(t, lineA, 0o600)
	var group sync.WaitGroup
	var won sync.Map
	for i := range 8 {
		group.Go(func() {
			if _, err := Append(path, lineB); err == nil {
				won.Store(i, true)
			}
		})
	}
	group.Wait()
	n := 0
	for range won.Range {
		n++
	}
	if n != 1 {
		t.Errorf("%d won, want 1", n)
	}
	mustBe(t, path, lineA+lineB)
}

// Root may ask about a file of another user, who must own it or leave it to root.
func TestLoadFor(t *testing.T) {
	t.Parallel()
	path := mustWrite(t, lineA, 0o600)
	own := os.Geteuid()
	if r, err := LoadFor(path, own); err != nil || r.First().String() != "a" {
		t.Errorf("for its owner: %v, %v", r, err)
	}
	if _, err := LoadFor(path, own+1); own != 0 && (err == nil || !strings.Contains(err.Error(), "belongs to user id")) {
		t.Errorf("for another user: %v", err)
	}
	if own != 0 {
		return
	}
	if err := os.Chown(path, 1001, 1001); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFor(path, 1001); err != nil {
		t.Errorf("for its owner, asked by root: %v", err)
	}
	if _, err := Load(path); err == nil {
		t.Error("root took another user's file as its own")
	}
}
