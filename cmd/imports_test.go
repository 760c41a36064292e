// SPDX-License-Identifier: Apache-2.0

// Package cmd holds the programs. By itself it has only this test, which keeps
// the module's packages in their order.
package cmd

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgconmgr/pgconmgr"

// arrows say which packages of the module a part may import, beside those of
// its own folder. The longest folder that holds a package decides.
var arrows = []struct {
	folder string
	may    []string
	why    string
}{
	{"agent", nil, "agent is what both daemons share and knows neither of them"},
	{"conmgr", []string{"agent"}, "conmgr and watchdog run on different hosts and meet only on the wire"},
	{"watchdog", []string{"agent"}, "conmgr and watchdog run on different hosts and meet only on the wire"},
	{"cmd", []string{"conmgr", "watchdog", "agent"}, "programs are thin: they start what the packages do"},
	{"scripts", []string{"agent", "conmgr", "watchdog"}, "scripts are for developers; nothing depends on them"},
}

// purePackages and pureFiles decide without doing: they get instants and data,
// and return data, so that tests can enumerate them.
var (
	purePackages = []string{"agent/wire", "agent/heartbeat", "agent/mono", "agent/key"}
	pureFiles    = []string{
		"conmgr/route.go", "conmgr/route_*.go", "conmgr/fleet.go", "conmgr/fleet_*.go",
		"conmgr/view.go", "conmgr/target.go", "watchdog/docket*.go",
		"agent/linkhint/table.go", "agent/linkhint/event.go",
	}
)

// impureImports are the ways out of a pure package; a name stands for all below
// it.
var impureImports = []string{"os", "net", "context", "log", "syscall", "runtime", "unsafe", "math/rand", "crypto/rand"}

// impureTime are the functions of package time that look at a clock.
var impureTime = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// homes say which folders may import a third-party package; the longest prefix
// of its path decides. Everything that stands outside the shipped programs
// (tests, agent/agenttest, scripts) may import all of them.
var homes = []struct {
	path    string
	folders []string
	why     string
}{
	{"github.com/cilium/ebpf", []string{"agent/linkhint"}, "one loader of BPF objects"},
	{"github.com/mdlayher/netlink", []string{"agent/sockdiag"}, "one place that finds and kills sockets"},
	{"github.com/vishvananda/netlink", []string{"agent/linkhint"}, "one place that watches interfaces and routes"},
	{"github.com/jackc/pgx/v5/pgproto3", []string{"conmgr"}, "only the console speaks the server's side of the protocol"},
	{"github.com/jackc/pgx/v5", []string{"watchdog", "conmgr/client", "cmd/cm_ctl", "cmd/agentctl"}, "conmgr itself never logs in to an instance"},
	{"github.com/lmittmann/tint", []string{"cmd/internal/cli"}, "only cli knows what a log looks like"},
	{"github.com/spf13/pflag", []string{"cmd"}, "flags end at the program"},
	{"github.com/coreos/go-systemd/v22", []string{"cmd"}, "the service manager is the program's concern"},
	{"github.com/prometheus/client_golang", []string{"cmd/internal/metrics"}, "one place that knows Prometheus, and it is the program's"},
	{"golang.org/x/net", []string{"agent/peer"}, "batched datagrams"},
	{"golang.org/x/sync", []string{"agent", "conmgr", "watchdog", "cmd"}, "part of the language in all but name"},
	{"golang.org/x/sys", []string{"agent", "conmgr", "watchdog", "cmd"}, "part of the language in all but name"},
	{"github.com/google/go-cmp", nil, "for tests"},
	{"github.com/prometheus/client_model", nil, "for tests"},
	{"github.com/prometheus/common", nil, "for tests"},
	{"github.com/vishvananda/netns", nil, "for tests"},
}

// topLevel is closed: a new folder is a decision about the layout.
var topLevel = []string{
	"bpf", "agent", "conmgr", "watchdog", "cmd", "scripts", "vagrant",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE",
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// folder is the package's path inside the module.
func (p pkg) folder() string { return inModule(p.ImportPath) }

func inModule(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func mustList(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("output of go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	return pkgs
}

// below reports whether path is folder or in it.
func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func belowAny(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return below(path, f) })
}

// forDevelopers reports whether a folder is no part of the shipped programs.
func forDevelopers(folder string) bool {
	return belowAny(folder, []string{"agent/agenttest", "scripts", "cmd/e2e", "cmd/internal/metrics/metricstest"})
}

func TestArrows(t *testing.T) {
	for _, p := range mustList(t) {
		folder := p.folder()
		rule := slices.IndexFunc(arrows, func(a struct {
			folder string
			may    []string
			why    string
		}) bool {
			return below(folder, a.folder)
		})
		if rule < 0 {
			t.Errorf("package %s: no rule says what it may import", p.ImportPath)
			continue
		}
		a := arrows[rule]
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if !below(path, module) {
				continue
			}
			if to := inModule(path); !below(to, a.folder) && !belowAny(to, a.may) {
				t.Errorf("%s imports %s: %s", folder, to, a.why)
			}
		}
	}
}

func TestShippedCodeDoesNotImportTheLab(t *testing.T) {
	for _, p := range mustList(t) {
		if forDevelopers(p.folder()) {
			continue
		}
		for _, path := range p.Imports {
			if path == "testing" || below(path, module) && forDevelopers(inModule(path)) {
				t.Errorf("%s imports %s: that is for tests and scripts", p.folder(), path)
			}
		}
	}
}

// Applications link conmgr/client: it must not bring the daemon with it.
func TestClientStandsAlone(t *testing.T) {
	for _, p := range mustList(t) {
		if p.folder() != "conmgr/client" {
			continue
		}
		for _, path := range p.Imports {
			if below(path, module) {
				t.Errorf("%s imports %s: applications link it, and meet the daemon at its console only", p.folder(), inModule(path))
			}
		}
	}
}

func TestThirdPartyHomes(t *testing.T) {
	for _, p := range mustList(t) {
		if forDevelopers(p.folder()) {
			continue
		}
		for _, path := range p.Imports {
			first, _, _ := strings.Cut(path, "/")
			if below(path, module) || !strings.Contains(first, ".") {
				continue
			}
			checkHome(t, p.folder(), path)
		}
	}
}

func checkHome(t *testing.T, folder, path string) {
	t.Helper()
	best := -1
	for i, home := range homes {
		if below(path, home.path) && (best < 0 || len(home.path) > len(homes[best].path)) {
			best = i
		}
	}
	switch {
	case best < 0:
		t.Errorf("%s imports %s: a new dependency needs a home in this table and its reason in the commit", folder, path)
	case !belowAny(folder, homes[best].folders):
		t.Errorf("%s imports %s, whose home is %v: %s", folder, path, homes[best].folders, homes[best].why)
	}
}

func TestPurePackages(t *testing.T) {
	for _, p := range mustList(t) {
		if !slices.Contains(purePackages, p.folder()) {
			continue
		}
		for _, path := range p.Imports {
			if below(path, module) && !slices.Contains(purePackages, inModule(path)) {
				t.Errorf("%s imports %s, which is not pure", p.folder(), inModule(path))
			}
		}
		files, err := filepath.Glob(filepath.Join("..", p.folder(), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			checkPure(t, file)
		}
	}
}

func TestPureFiles(t *testing.T) {
	for _, pattern := range pureFiles {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			checkPure(t, file)
		}
	}
}

// checkPure looks at one file that is no test.
func checkPure(t *testing.T, path string) {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") {
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(imported, "/")
		thirdParty := strings.Contains(first, ".") && !below(imported, module)
		if imported != "net/netip" && belowAny(imported, impureImports) || thirdParty {
			t.Errorf("%s imports %s: pure code gets its input as arguments and returns what to do", path, imported)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s starts a goroutine: pure code has none", path)
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(impureTime, n.Sel.Name) {
				t.Errorf("%s uses time.%s: now is an argument", path, n.Sel.Name)
			}
		}
		return true
	})
}

func TestTopLevelIsClosed(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || name == "bin" { // bin is not under version control
			continue
		}
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s at the top: the names there are %v and dot files", name, topLevel)
		}
	}
}

func TestBPFHoldsNoGo(t *testing.T) {
	err := filepath.WalkDir("../bpf", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") {
			t.Errorf("%s: bpf holds C; the Go that loads it lives in agent/linkhint", path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // no BPF program yet
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
