// SPDX-License-Identifier: Apache-2.0

// Command man makes the man pages and the sample of pgwatchdog.conf:
//
//	go run ./scripts/man -bin bin -o bin/man
//
// The pages stand in pages/ as mdoc(7) with holes, which are filled with what the
// programs say by themselves: their --help, their tables of parameters, the log
// messages that need an operator. So they cannot go stale; the tests see to it that
// nothing is left out. SOURCE_DATE_EPOCH is the date of the pages (now without).
package main

import (
	"embed"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/pgconmgr/pgconmgr/conmgr"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

//go:embed pages
var pages embed.FS

func main() {
	bin := flag.String("bin", "bin", "directory of the built programs")
	out := flag.String("o", "bin/man", "directory to write to")
	flag.Parse()
	if err := run(*bin, *out, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(bin, out, epoch string) error {
	g := &generator{bin: bin, date: time.Now().UTC()}
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		g.date = time.Unix(seconds, 0).UTC()
	}
	files, err := g.all()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generator fills the holes of the pages.
type generator struct {
	bin  string // of the programs
	date time.Time
}

// all returns every file by its name.
func (g *generator) all() (map[string]string, error) {
	names, err := fs.Glob(pages, "pages/*.mdoc")
	if err != nil {
		return nil, err
	}
	files := map[string]string{"pgwatchdog.conf.sample": sample()}
	for _, name := range names {
		page := strings.TrimSuffix(filepath.Base(name), ".mdoc")
		if files[page], err = g.page(name, page); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// page renders one page: its head, and what stands in its file.
func (g *generator) page(file, name string) (string, error) {
	text, err := pages.ReadFile(file)
	if err != nil {
		return "", err
	}
	t, err := template.New(name).Funcs(g.functions()).Parse(string(text))
	if err != nil {
		return "", err
	}
	title, section, _ := cutLast(name, ".")
	var out strings.Builder
	fmt.Fprintf(&out, ".\\\" Made by scripts/man.\n.Dd %s\n.Dt %s %s\n.Os\n",
		g.date.Format("January 2, 2006"), strings.ToUpper(title), section)
	if err := t.Execute(&out, nil); err != nil {
		return "", err
	}
	return finish(out.String()), nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// functions are what can stand in a hole.
func (g *generator) functions() template.FuncMap {
	return template.FuncMap{
		"synopsis": g.onHelp(synopsis),
		"describe": g.onHelp(describe),
		"verbs":    g.verbs,
		"conmgr":   func() string { return parameters(conmgr.Parameters()) },
		"watchdog": func() string { return parameters(watchdog.Parameters()) },
		"messages": messagesOf,
		"events":   events,
		"own":      func(name string) bool { return slices.Contains(watchdog.OwnNames(), name) },
	}
}

func (g *generator) onHelp(f func(string) string) func(string) (string, error) {
	return func(command string) (string, error) {
		help, err := g.helpOf(command)
		return f(help), err
	}
}

// verbs is a section for each command of a program, as its help lists them.
func (g *generator) verbs(program string) (string, error) {
	help, err := g.helpOf(program)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, b := range blocks(help) {
		if b.heading != "Commands" {
			continue
		}
		for _, i := range b.items(b.column()) {
			verb, err := g.helpOf(i.term)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&out, ".Sh %s\n%s.Pp\n%s", strings.ToUpper(escape(i.term)), usage(verb), describe(verb))
		}
	}
	return out.String(), nil
}
