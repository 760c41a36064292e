// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const module = "github.com/jackc/pgx/v5"

// hookFile is added to pgconn of the copy.
const hookFile = `package pgconn

import "context"

// ConnectHook changes the configuration of every connect.
var ConnectHook func(context.Context, *Config) (*Config, error)

func ConnectConfig(ctx context.Context, config *Config) (*PgConn, error) {
	if ConnectHook != nil {
		var err error
		if config, err = ConnectHook(ctx, config); err != nil {
			return nil, &ConnectError{Config: config, err: err}
		}
	}
	return connectConfig(ctx, config)
}
`

// directEnv tells the compiled tests to go through conmgr/client; its value is the
// user that conmgr runs as.
const directEnv = "PGXSUITE_DIRECT"

// setHook is added to the tests of each package; the name of the package is put in.
const setHook = `package %s_test

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/conmgr/client"
)

func init() {
	user := os.Getenv("` + directEnv + `")
	if user == "" {
		return
	}
	d := &client.Dialer{User: user}
	pgconn.ConnectHook = func(ctx context.Context, cfg *pgconn.Config) (*pgconn.Config, error) {
		c := &pgx.ConnConfig{Config: *cfg.Copy()}
		err := d.BeforeConnect(ctx, c)
		return &c.Config, err
	}
}
`

// build copies pgx, adds the hook and compiles the tests.
func (s *suite) build(ctx context.Context) error {
	from, err := output(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return err
	}
	s.source = filepath.Join(s.dir, "pgx")
	if _, err := output(ctx, ".", "cp", "-r", "--no-preserve=mode", from, s.source); err != nil {
		return err
	}
	if err := s.patch(ctx, s.source); err != nil {
		return err
	}
	for _, pkg := range s.packages {
		if _, err := output(ctx, filepath.Join(s.source, pkg), "go", "test", "-c", "-o", s.binary(pkg), "."); err != nil {
			return err
		}
	}
	fmt.Printf("%s of %s\n", module, filepath.Base(from))
	return nil
}

// binary is where the compiled tests of a package lie.
func (s *suite) binary(pkg string) string {
	return filepath.Join(s.dir, strings.NewReplacer(".", "root", "/", "-").Replace(pkg)+".test")
}

// patch adds the hook to a copy, and joins the copy with this module.
func (s *suite) patch(ctx context.Context, dir string) error {
	const declared = "func ConnectConfig(ctx context.Context, config *Config) (*PgConn, error) {"
	path := filepath.Join(dir, "pgconn", "pgconn.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Count(text, []byte(declared)) != 1 {
		return errors.New("pgconn.ConnectConfig is not declared as expected: has pgx changed?")
	}
	text = bytes.Replace(text, []byte(declared), []byte(strings.Replace(declared, "ConnectConfig", "connectConfig", 1)), 1)
	errs := []error{
		os.WriteFile(path, text, 0o644),
		os.WriteFile(filepath.Join(dir, "pgconn", "hook.go"), []byte(hookFile), 0o644),
	}
	for _, pkg := range s.packages {
		name, err := packageName(filepath.Join(dir, pkg))
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, pkg, "conmgr_hook_test.go"), fmt.Appendf(nil, setHook, name), 0o644))
	}
	root, err := output(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}")
	work := fmt.Sprintf("go 1.26.0\n\nuse (\n\t%q\n\t%q\n)\n", dir, root)
	return errors.Join(append(errs, err, os.WriteFile(filepath.Join(dir, "go.work"), []byte(work), 0o644))...)
}

var packageClause = regexp.MustCompile(`(?m)^package (\w+)$`)

// packageName finds it in any file that is no test.
func packageName(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if m := packageClause.FindSubmatch(text); m != nil {
			return string(m[1]), nil
		}
	}
	return "", fmt.Errorf("no package in %s", dir)
}

// output runs a program in a directory and returns what it prints, without the
// last newline.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
