// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// mustProc makes a /proc of processes with descriptors.
func mustProc(t *testing.T, processes map[string][]string) string {
	t.Helper()
	proc := t.TempDir()
	for pid, links := range processes {
		fds := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(fds, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte("name-"+pid+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, link := range links {
			if err := os.Symlink(link, filepath.Join(fds, string(rune('0'+i)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return proc
}

func TestFindOwners(t *testing.T) {
	t.Parallel()
	proc := mustProc(t, map[string][]string{
		"10":   {"socket:[77]", "socket:[77]", "pipe:[77]", "/dev/null", "socket:[78", "socket:[x]"},
		"9":    {"socket:[77]", "socket:[79]", "socket:[99999999999]"},
		"self": {"socket:[77]"},
		"1":    nil,
	})
	found := findOwners(proc, map[uint32]bool{77: true, 78: true})
	want := map[uint32][]process{77: {{10, "name-10"}, {9, "name-9"}}, 78: {{10, "name-10"}}}
	if diff := cmp.Diff(want, found.byInode); diff != "" || found.hidden {
		t.Errorf("hidden %v, owners (-want +got):\n%s", found.hidden, diff)
	}
	if found := findOwners(mustProc(t, map[string][]string{"9": nil}), map[uint32]bool{77: true}); !found.hidden {
		t.Error("a /proc without process 1 hides nothing")
	}
	if found := findOwners(filepath.Join(proc, "none"), map[uint32]bool{77: true}); !found.hidden {
		t.Error("a missing /proc hides nothing")
	}
	if found := findOwners(filepath.Join(proc, "none"), nil); found.hidden {
		t.Error("nothing wanted, and it is hidden")
	}
}

func TestUserNames(t *testing.T) {
	t.Parallel()
	users := make(userNames)
	for uid, want := range map[uint32]string{0: "root", 4294967294: "4294967294"} {
		for range 2 {
			if got := users.name(uid); got != want {
				t.Errorf("user %d is %s, want %s", uid, got, want)
			}
		}
	}
}

// The thread is back in its own namespace afterwards, whatever happens inside.
func TestInNamespaceComesBack(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	err := lab.Host("client").Do(func() error {
		before, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		var inside string
		err = inNamespace(lab.Host("db").Namespace(), func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return errors.Join(err, os.ErrInvalid)
		})
		if after, _ := os.Readlink("/proc/thread-self/ns/net"); after != before || inside == before {
			t.Errorf("namespace %s, inside %s, after %s", before, inside, after)
		}
		return err
	})
	if !errors.Is(err, os.ErrInvalid) {
		t.Fatal(err)
	}
}
