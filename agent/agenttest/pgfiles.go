// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// postgresUser runs the servers: PostgreSQL refuses root.
const postgresUser = "postgres"

// postgresPrograms are what an instance needs; some systems have links to only
// a few of them in PATH.
var postgresPrograms = []string{"postgres", "initdb", "pg_basebackup", "pg_rewind"}

// postgresBin finds the directory of the server's programs: PGBINDIR, the one
// in PATH, or the newest below /usr/lib/postgresql (Debian).
func postgresBin() (string, error) {
	if dir := os.Getenv("PGBINDIR"); dir != "" {
		if !hasPostgres(dir) {
			return "", fmt.Errorf("%s in PGBINDIR=%s", strings.Join(postgresPrograms, ", "), dir)
		}
		return dir, nil
	}
	if path, err := exec.LookPath("initdb"); err == nil && hasPostgres(filepath.Dir(path)) {
		return filepath.Dir(path), nil
	}
	best, newest := "", 0
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	for _, dir := range found {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err == nil && version > newest && hasPostgres(dir) {
			best, newest = dir, version
		}
	}
	if best == "" {
		return "", fmt.Errorf("a PostgreSQL server (%s in PGBINDIR, PATH or /usr/lib/postgresql/*/bin)",
			strings.Join(postgresPrograms, ", "))
	}
	return best, nil
}

func hasPostgres(dir string) bool {
	for _, name := range postgresPrograms {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// PostgresFiles returns the directory of the server's programs and a data
// directory as initdb makes it, for tests that bring both to another machine.
func PostgresFiles(ctx context.Context) (bin, data string, err error) {
	if bin, err = postgresBin(); err != nil {
		return "", "", err
	}
	data, err = template(ctx, bin)
	return bin, data, err
}

// MakeDataDir makes a data directory of postgresUser's as initdb does, with the
// superuser postgres, by copying one. It needs root.
func MakeDataDir(ctx context.Context, to string) error {
	_, from, err := PostgresFiles(ctx)
	if err != nil {
		return err
	}
	return copyTree(ctx, from, to)
}

// initdb makes a data directory in a directory of postgresUser's.
func initdb(ctx context.Context, bin, data string) error {
	_, err := runTool(ctx, "", "setpriv", "--reuid="+postgresUser, "--regid="+postgresUser, "--clear-groups",
		filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync", "--wal-segsize=1")
	return err
}

// template returns a data directory to copy, made once for each version of
// PostgreSQL and kept in the user's cache: initdb takes a second, a copy a
// tenth of it.
func template(ctx context.Context, bin string) (string, error) {
	version, err := runTool(ctx, "", filepath.Join(bin, "postgres"), "--version")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache" // no HOME: a service
	}
	name := strings.NewReplacer(" ", "-", "/", "-", "(", "", ")", "").Replace(strings.TrimSpace(version))
	final := filepath.Join(cache, "pgconmgr", "initdb-"+name)
	unlock, err := lockFile(filepath.Join(cache, "pgconmgr", "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(final, "PG_VERSION")); err == nil {
		return final, nil
	}
	return final, makeTemplate(ctx, bin, final)
}

// makeTemplate runs initdb where its user may write, and publishes the result
// by a rename.
func makeTemplate(ctx context.Context, bin, final string) error {
	dir, err := os.MkdirTemp("/tmp", "pgconmgr-initdb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	uid, gid, err := lookupUser(postgresUser)
	if err != nil {
		return err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := initdb(ctx, bin, data); err != nil {
		return err
	}
	if err := os.RemoveAll(final + ".new"); err != nil {
		return err
	}
	if err := copyTree(ctx, data, final+".new"); err != nil {
		return err
	}
	return os.Rename(final+".new", final)
}

func copyTree(ctx context.Context, from, to string) error {
	_, err := runTool(ctx, "", "cp", "-a", "--reflink=auto", from, to)
	return err
}

// removeSharedMemory frees the System V segments of the servers below dir that
// were killed: each keeps one as a lock, which outlives its processes
// (sysv_shmem.c), and a machine has a limited number.
func removeSharedMemory(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() != "postmaster.pid" {
			return err
		}
		id, err := sharedMemoryID(path)
		if err != nil || id < 0 {
			return err
		}
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("remove shared memory segment %d of %s: %w", id, path, err)
		}
		return nil
	})
}

// sharedMemoryID reads line 7 (LOCK_FILE_LINE_SHMEM_KEY, pidfile.h) of a
// postmaster.pid: "key id". It is -1 when the server did not get that far.
func sharedMemoryID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return -1, nil
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return -1, nil
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return -1, fmt.Errorf("%s: shared memory id: %w", path, err)
	}
	return id, nil
}

// waitUnused waits until no process of the group works in the directory:
// PostgreSQL's processes all do, and a server does not start before those of
// its killed predecessor have noticed.
func waitUnused(ctx context.Context, group cgroup, dir string) error {
	return poll(ctx, 10*time.Second, "end of the processes in "+dir, func() (bool, error) {
		pids, err := group.processes()
		if err != nil {
			return false, err
		}
		for _, pid := range pids {
			if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == dir {
				return false, nil
			}
		}
		return true, nil
	})
}
