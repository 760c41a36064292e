// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

func TestKeygen(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	stdout, stderr := w.must(t, cli.ExitOK, "keygen")
	path := filepath.Join(w.dir, "heartbeat.key")
	mustMatch(t, "stdout", stdout, `^key key-[0-9a-f]{8} is in `+path+`, for conmgrs at any address\n\nWhat to do next:\n`+
		`.*key_file in /etc/pgconmgr/pgwatchdog.conf.*heartbeat_key_file = '`+path+`' in conmgr.conf`)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustMatch(t, "key file", string(text), `^key-[0-9a-f]{8} [0-9a-f]{64}\n$`)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if secret := strings.Fields(string(text))[1]; strings.Contains(stdout+stderr, secret) {
		t.Error("the secret is printed")
	}
	_, stderr = w.must(t, cli.ExitFailure, "keygen")
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: key file `+path+` exists and is not overwritten: expected another name, or --append to add a key to it\n$`)
	if again, _ := os.ReadFile(path); string(again) != string(text) {
		t.Error("the key file was changed")
	}
}

func TestKeygenAppend(t *testing.T) {
	t.Parallel()
	w := mustWorld(t, playGood)
	path := filepath.Join(t.TempDir(), "k")
	w.must(t, cli.ExitOK, "keygen", "-o", path, "--id", "app-2025", "192.0.2.7/24", "2001:db8::1")
	stdout, _ := w.must(t, cli.ExitOK, "keygen", "--append", "-o", path, "--id=app-2026", "192.0.2.7")
	mustMatch(t, "stdout", stdout, `^key app-2026 is added to `+path+`, for conmgrs at 192\.0\.2\.7/32\nIt is key 2 of the file; a conmgr uses the first one, app-2025\.\n`)
	ring, err := keyfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range ring.Keys() {
		got = append(got, fmt.Sprint(k, k.Clients()))
	}
	if want := "app-2025[192.0.2.0/24 2001:db8::1/128] app-2026[192.0.2.7/32]"; strings.ReplaceAll(strings.Join(got, " "), " [", "[") != want {
		t.Errorf("keys %q, want %s", got, want)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if secrets := regexp.MustCompile(`[0-9a-f]{64}`).FindAllString(string(text), -1); len(secrets) != 2 || secrets[0] == secrets[1] {
		t.Errorf("secrets of %q", text)
	}
	_, stderr := w.must(t, cli.ExitFailure, "keygen", "--append", "-o", path, "--id=app-2026")
	mustMatch(t, "stderr", stderr, `^cm_ctl: error: `+path+`:3: key id app-2026 stands in the file twice\n$`)
	_, stderr = w.must(t, cli.ExitFailure, "keygen", "--append")
	mustMatch(t, "stderr", stderr, `heartbeat\.key: no such file or directory\n$`)
}

// A key may be made where no conmgr is, by root too.
func TestKeygenNeedsNoConmgr(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	var out, errs strings.Builder
	e := env{args: []string{"keygen", "-o", path}, stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	if exit := run(e); exit != cli.ExitOK {
		t.Fatalf("exit %d, %s", exit, errs.String())
	}
	if _, err := keyfile.Load(path); err != nil {
		t.Error(err)
	}
	e.args = []string{"keygen"}
	if exit := run(e); exit != cli.ExitUsage || !strings.HasPrefix(errs.String(), "cm_ctl: error: no key file: expected -o, or -D or the environment variable CMDATA\n") {
		t.Errorf("exit %d, %s", exit, errs.String())
	}
}
