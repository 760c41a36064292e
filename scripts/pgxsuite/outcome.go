// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// outcomes are PASS, FAIL or SKIP by "package:test".
type outcomes map[string]string

var resultLine = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// runPackage runs tests of a package on a way and adds their outcomes.
func (s *suite) runPackage(ctx context.Context, way, pkg, pattern string, to outcomes) error {
	args := []string{"-test.v", "-test.timeout=10m"}
	if pattern != "" {
		args = append(args, "-test.run="+pattern)
	}
	cmd := s.world.client.Command(ctx, s.binary(pkg), args...)
	cmd.Dir = filepath.Join(s.source, pkg)
	cmd.Env = s.world.environment(way)
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return err
	}
	log := filepath.Join(s.dir, fmt.Sprintf("%s-%s.log", way, strings.ReplaceAll(pkg, "/", "-")))
	if err := appendFile(log, out); err != nil {
		return err
	}
	got := read(pkg, out)
	if i := bytes.Index(out, []byte("\npanic: ")); i >= 0 || len(got) == 0 {
		return fmt.Errorf("tests of %s broke off: %s", pkg, bytes.TrimSpace(out[max(i, 0):min(len(out), max(i, 0)+2000)]))
	}
	maps.Copy(to, got)
	return nil
}

// read finds the outcomes in what the tests of a package print.
func read(pkg string, out []byte) outcomes {
	got := outcomes{}
	for _, m := range resultLine.FindAllSubmatch(out, -1) {
		got[pkg+":"+string(m[2])] = string(m[1])
	}
	return got
}

func appendFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// differing names the tests that end differently. A test that differs only by
// its subtests is left out.
func (o outcomes) differing(other outcomes) []string {
	var names []string
	for name, here := range o {
		if other[name] != here {
			names = append(names, name)
		}
	}
	for name := range other {
		if _, ok := o[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(names, func(sub string) bool { return strings.HasPrefix(sub, name+"/") })
	})
}

func (o outcomes) count() string {
	n := map[string]int{}
	for _, what := range o {
		n[what]++
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped", n["PASS"], n["FAIL"], n["SKIP"])
}

// word is how an outcome is printed.
func word(outcome string) string {
	switch outcome {
	case "PASS":
		return "passes"
	case "FAIL":
		return "fails"
	case "SKIP":
		return "is skipped"
	}
	return "is not there"
}
