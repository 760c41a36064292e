// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sourceOf says in which folders a daemon's messages are.
var sourceOf = map[string][]string{
	"pgwatchdog": {"watchdog", "cmd/pgwatchdog"},
	"conmgr":     {"conmgr", "cmd/conmgr"},
	"both":       {"agent", "cmd/internal/cli"},
}

// notLogged are folders whose warnings are no daemon's.
var notLogged = []string{"agent/agenttest", "conmgr/client"}

// warnings are the texts that a folder's source logs at WARNING or above.
func warnings(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && slices.Contains(notLogged, filepath.ToSlash(rel)) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, text := range warningsIn(n) {
				found[text] = rel
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// warningsIn looks at one node: a call of Warn or Error with a text, a call that has a
// level and a text, or an assignment of both.
func warningsIn(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		if text, ok := literalText(n.Args, 0); ok && (f.Sel.Name == "Warn" || f.Sel.Name == "Error") {
			return []string{text}
		}
		return levelled(n.Args)
	case *ast.AssignStmt:
		return levelled(n.Rhs)
	}
	return nil
}

// levelled is the text behind a level; between the two may stand the name, in one
// word, of what it is about.
func levelled(args []ast.Expr) []string {
	at := slices.IndexFunc(args, isLevel)
	if at < 0 {
		return nil
	}
	first, ok := literalText(args, at+1)
	if !ok {
		return nil
	}
	if second, ok := literalText(args, at+2); ok && !strings.Contains(first, " ") && strings.Contains(second, " ") {
		return []string{second}
	}
	return []string{first}
}

// isLevel is a name of WARNING or above, or a variable that may be one.
func isLevel(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return slices.Contains([]string{"LevelWarn", "LevelError", "LevelFatal"}, e.Sel.Name)
	case *ast.Ident:
		return slices.Contains([]string{"level", "LevelFatal", "FleetWarn", "FleetError"}, e.Name)
	}
	return false
}

func literalText(args []ast.Expr, i int) (string, bool) {
	if i >= len(args) {
		return "", false
	}
	lit, ok := args[i].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// byVariable are messages whose text is no literal beside their level.
var byVariable = map[string]string{
	"watchdog not reached": "conmgr/monitor.go, notReached",
	"warrant":              "watchdog/docket_orders.go, DocketWarrant",
}

// Every message that needs an operator is explained, and none that there is not.
func TestMessagesAreExplained(t *testing.T) {
	for daemon, list := range map[string][]message{"pgwatchdog": pgwatchdogMessages, "conmgr": conmgrMessages, "both": sharedMessages} {
		logged, all := map[string]string{}, map[string]string{}
		for of, folders := range sourceOf {
			for _, folder := range folders {
				found := warnings(t, folder)
				maps.Copy(all, found)
				if of == daemon {
					maps.Copy(logged, found)
				}
			}
		}
		for _, m := range list {
			if all[m.text] == "" && byVariable[m.text] == "" {
				t.Errorf("%s: the message %q is explained in messages.go, and logged nowhere", daemon, m.text)
			}
			if !strings.HasSuffix(m.do, ".") && !strings.HasSuffix(m.do, "?") {
				t.Errorf("%s: what is said of %q is no sentence", daemon, m.text)
			}
		}
		for text, place := range logged {
			if !explains(list, text) && !explains(sharedMessages, text) {
				t.Errorf("%s logs %q: messages.go of scripts/man has to say what an operator does about it", place, text)
			}
		}
	}
}

func explains(list []message, text string) bool {
	return slices.ContainsFunc(list, func(m message) bool { return m.text == text })
}

func TestScanFindsEachForm(t *testing.T) {
	const source = `package p
func f() {
	log.Warn("one", "key", 1)
	s.log.Error("two")
	log.Log(ctx, slog.LevelWarn, "three", "name", 3)
	w.complain(&w.last, slog.LevelError, "four", why)
	w.complain(slog.LevelWarn, "thing", "five is behind a name", err)
	level, msg = slog.LevelError, "six"
	out.log(FleetWarn, "seven", "instance", name)
	log.Log(ctx, level, "eight")
	log.Info("not this")
	log.Log(ctx, LevelLog, "nor that")
	t.Error(err)
}`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ast.Inspect(file, func(n ast.Node) bool { got = append(got, warningsIn(n)...); return true })
	want := []string{"one", "two", "three", "four", "five is behind a name", "six", "seven", "eight"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
