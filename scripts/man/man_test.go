// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/conmgr"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// built is the directory with the programs and the pages made of them.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pgconmgr-man-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "github.com/pgconmgr/pgconmgr/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return dir, err
	}
	return dir, run(dir, filepath.Join(dir, "man"), "1700000000")
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := built(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// mustPages returns all pages, by name, as they are installed.
func mustPages(t *testing.T) (dir string, pages map[string]string) {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, pages = filepath.Join(bin, "man"), map[string]string{}
	names, err := filepath.Glob(filepath.Join(dir, "*.[1-9]"))
	if err != nil || len(names) < 10 {
		t.Fatalf("pages %v, %v", names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(name)] = string(text)
	}
	return dir, pages
}

// plain is the text of a page without what mdoc needs.
func plain(page string) string {
	return strings.Join(strings.Fields(strings.NewReplacer(`\-`, "-", `\e`, `\`, `""`, `"`, `\&`, "", `\(ti`, "~").Replace(page)), " ")
}

func TestPagesAreClean(t *testing.T) {
	agenttest.NeedTool(t, "mandoc")
	dir, pages := mustPages(t)
	for name := range pages {
		// The exit code says only that there is something.
		out, _ := exec.Command("mandoc", "-T", "lint", "-W", "style", filepath.Join(dir, name)).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "outdated mandoc.db") {
				t.Errorf("%s", strings.TrimSpace(line))
			}
		}
	}
}

// A page that is named is one of ours, or one of the system's that every Debian has.
func TestReferencesLeadSomewhere(t *testing.T) {
	_, pages := mustPages(t)
	reference := regexp.MustCompile(`\.Xr (\S+) ([0-9])`)
	for name, text := range pages {
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			to := m[1] + "." + m[2]
			if _, ok := pages[to]; !ok && to != "systemctl.1" {
				t.Errorf("%s refers to %s, which is not there", name, to)
			}
		}
	}
}

// Every program has a page, on which everything stands that its help says.
func TestPagesSayWhatHelpSays(t *testing.T) {
	_, pages := mustPages(t)
	bin, _ := built()
	g := &generator{bin: bin}
	for command, page := range map[string]string{
		"conmgr": "conmgr.8", "cm_ctl": "cm_ctl.1", "pgwatchdog": "pgwatchdog.8", "agentctl": "agentctl.8",
		"agentctl sockets": "agentctl.8", "agentctl sockets kill": "agentctl.8", "agentctl doctor": "agentctl.8",
	} {
		help, err := g.helpOf(command)
		if err != nil {
			t.Fatal(err)
		}
		text := plain(pages[page])
		for _, b := range blocks(help) {
			for _, line := range b.lines {
				for _, word := range strings.Fields(line) {
					if !strings.Contains(text, word) {
						t.Errorf("%s --help says %q, which %s does not", command, word, page)
					}
				}
			}
		}
	}
}

func TestPagesHaveEveryParameter(t *testing.T) {
	_, pages := mustPages(t)
	for page, table := range map[string]conf.Table{"conmgr.conf.5": conmgr.Parameters(), "pgwatchdog.conf.5": watchdog.Parameters()} {
		text := plain(pages[page])
		for i := range table {
			p := &table[i]
			for _, want := range []string{`.It "` + p.Name + `"`, p.Facts(), strings.Join(strings.Fields(p.About), " ")} {
				if !strings.Contains(text, want) {
					t.Errorf("%s does not say of %s: %s", page, p.Name, want)
				}
			}
		}
	}
	for _, name := range watchdog.OwnNames() {
		if !strings.Contains(pages["pgwatchdog.conf.5"], ".It "+name+"\n") {
			t.Errorf("pgwatchdog.conf.5 lacks %s", name)
		}
	}
	file := filepath.Join(t.TempDir(), "pgwatchdog.conf")
	if err := os.WriteFile(file, []byte(uncommented(sample())), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := watchdog.ReadFile(file); err != nil {
		t.Errorf("the sample of pgwatchdog.conf: %v", err)
	}
}

// uncommented lets the settings of a sample count.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^#([a-z_.]+ = .+)$`).ReplaceAllString(text, "$1")
}

// The presets are settings that the daemons take, with beats and graces that fit into
// the timeout.
func TestPresets(t *testing.T) {
	_, pages := mustPages(t)
	_, text, _ := strings.Cut(pages["pgconmgr.7"], "Four presets")
	setting := regexp.MustCompile(`(watchdog\.link_down_grace|heartbeat_interval|heartbeat_timeout|link_down_grace) *= (\S+)`)
	for _, preset := range []string{"seed", "wan", "lan", "lan-fast"} {
		_, of, ok := strings.Cut(text, ".It Sy "+preset+"\n")
		of, _, _ = strings.Cut(of, ".Ed\n")
		values := map[string]time.Duration{}
		for _, m := range setting.FindAllStringSubmatch(of, -1) {
			d, err := conf.ParseDuration(m[2], time.Second, 0, time.Hour)
			if err != nil {
				t.Errorf("%s: %s: %v", preset, m[0], err)
			}
			values[m[1]] = d
		}
		interval, timeout := values["heartbeat_interval"], values["heartbeat_timeout"]
		if !ok || len(values) != 4 || interval <= 0 || timeout < 2*interval ||
			values["link_down_grace"] > timeout || values["watchdog.link_down_grace"] > timeout {
			t.Errorf("preset %s: %v", preset, values)
		}
	}
}

func TestHelpBecomesMdoc(t *testing.T) {
	const help = `tool does one thing. It needs
no right.

Usage:
  tool [OPTION]... FILE

Options (each once):
  --all          everything; also what
                 is hidden
  -x, --longer-than-the-column
                 see above
  --dir=\DIR     a place

Run it as:
  sudo tool --all
`
	wantSynopsis := ".Nm tool\n[OPTION]... FILE\n"
	want := `tool does one thing.
It needs no right.
.Pp
Options (each once):
.Bl -tag -width Ds -compact
.It "\-\-all"
everything; also what is hidden
.It "\-x, \-\-longer\-than\-the\-column"
see above
.It "\-\-dir=\eDIR"
a place
.El
.Pp
Run it as:
.Bd -literal -offset indent
sudo tool \-\-all
.Ed
`
	if got := synopsis(help); got != wantSynopsis {
		t.Errorf("synopsis: %q, want %q", got, wantSynopsis)
	}
	if got := describe(help); got != want {
		t.Errorf("description:\n%s\nwant:\n%s", got, want)
	}
}

func TestFinish(t *testing.T) {
	const page = ".Bd -literal\nkeep --this     as it is, however long the line may become in the end, and on and on\n.Ed\n\n" +
		"a --b \\-c\n" + "word word word word word word word word word word word word word word word .conf\n"
	want := ".Bd -literal\nkeep --this     as it is, however long the line may become in the end, and on and on\n.Ed\n" +
		"a \\-\\-b \\-c\n" + "word word word word word word word word word word word word word word word\n\\&.conf\n"
	if got := finish(page); got != want {
		t.Errorf("finish:\n%s\nwant:\n%s", got, want)
	}
}

// Two runs make the same bytes.
func TestPagesAreReproducible(t *testing.T) {
	_, pages := mustPages(t)
	bin, _ := built()
	again := t.TempDir()
	if err := run(bin, again, "1700000000"); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		text, err := os.ReadFile(filepath.Join(again, name))
		if err != nil || string(text) != pages[name] {
			t.Errorf("%s differs (%v)", name, err)
		}
	}
	if err := run(bin, again, "yesterday"); err == nil {
		t.Error("SOURCE_DATE_EPOCH=yesterday: want an error")
	}
}
