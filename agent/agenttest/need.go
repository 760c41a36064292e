// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// strictEnv turns every skip into a failure: set where everything must be
// there, so that a test that never runs cannot look like one that passes.
const strictEnv = "CM_TEST_STRICT"

// Skip skips the test because something that it needs is missing, and fails it
// when CM_TEST_STRICT=1.
func Skip(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv(strictEnv) == "1" {
		t.Fatalf("needs %s (%s=1: a failure, not a skip)", missing, strictEnv)
	}
	t.Skipf("needs %s", missing)
}

// tierEnv set to "unit" leaves out what needs root or PostgreSQL even where
// they are there. That is no missing thing: strictEnv does not change it.
const tierEnv = "CM_TEST_TIER"

func needTier(t testing.TB) {
	t.Helper()
	if os.Getenv(tierEnv) == "unit" {
		t.Skipf("not in the tier unit")
	}
}

// NeedRoot skips the test without root.
func NeedRoot(t testing.TB) {
	t.Helper()
	needTier(t)
	if os.Geteuid() != 0 {
		Skip(t, "root")
	}
}

// NeedTool skips the test without a program in PATH.
func NeedTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Skip(t, name+" in PATH")
	}
}

// NeedPostgres skips the test without a PostgreSQL server's programs.
func NeedPostgres(t testing.TB) {
	t.Helper()
	needTier(t)
	if _, err := postgresBin(); err != nil {
		Skip(t, err.Error())
	}
	if _, _, err := lookupUser(postgresUser); err != nil {
		Skip(t, "the system user "+postgresUser)
	}
}

// NeedLab skips the test where New cannot work.
func NeedLab(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	NeedTool(t, "ip")
	NeedTool(t, "nft")
	root, err := cgroupRoot()
	if err != nil {
		Skip(t, "cgroup2: "+err.Error())
	}
	if err := unix.Access(root, unix.W_OK); err != nil {
		Skip(t, "a writable cgroup2 hierarchy at "+root)
	}
}

// NeedTap skips the test where no tap device can be made.
func NeedTap(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		Skip(t, "/dev/net/tun (CONFIG_TUN)")
	}
}

// ErrHostNamespace means that the caller's thread is where the machine's own
// connections are.
var ErrHostNamespace = errors.New("this is the machine's own network namespace")

// GuardHostNamespace returns ErrHostNamespace unless the calling thread is in
// a network namespace that is neither that of process 1 nor the one that this
// program was started in. Call it (in Do) before anything that kills sockets.
func GuardHostNamespace() error {
	here, err := namespaceOf("thread-self")
	if err != nil {
		return err
	}
	for _, other := range []string{"1", "self"} {
		there, err := namespaceOf(other)
		if other == "1" && errors.Is(err, fs.ErrPermission) {
			continue // a sandbox: process 1 has a right that we have not
		}
		if err != nil {
			return err
		}
		if here == there {
			return ErrHostNamespace
		}
	}
	return nil
}

// namespaceOf returns the identity of the network namespace of /proc/WHO.
// "self" is the process's main thread, which nothing here ever moves.
func namespaceOf(who string) (id [2]uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+who+"/ns/net", &st); err != nil {
		return id, fmt.Errorf("network namespace of %s: %w", who, err)
	}
	return [2]uint64{uint64(st.Dev), st.Ino}, nil
}
