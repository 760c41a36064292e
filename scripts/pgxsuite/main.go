// SPDX-License-Identifier: Apache-2.0

// Command pgxsuite runs the test suite of pgx itself, in the version of go.mod,
// against one PostgreSQL on four ways, and compares what each test says with what
// it says straight:
//
//	straight   host db                 pgx alone
//	pass       localhost, 27551        a pass-through port of conmgr
//	proxy      localhost, 27546        proxy mode
//	direct     localhost, 27546        package conmgr/client: every connect of the
//	                                   suite goes through BeforeConnect
//
// The source of pgx is copied from the module cache. In the copy pgconn.ConnectConfig
// calls a hook first, if it is set: a file that is added to each package's tests
// does so for direct, and for nothing else.
//
// That direct mode is meant is seen at conmgr, which counts its questions; the other
// ways must have none.
//
// A test that differs is run again, alone: three times the same is a difference.
// Each one is printed; one that is not in the table of differences.go is an error,
// and so is one in the table that is none any more.
//
//	go run ./scripts/pgxsuite [-ways straight,pass,proxy,direct] [-run REGEXP] [-keep] (root)
//
// The last line counts tests and differences. Exit code 1: an unexpected outcome.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// suite is one run of the program.
type suite struct {
	ways     []string
	pattern  string
	keep     bool
	packages []string
	dir      string // for the compiled tests and what they print
	source   string // the copy of pgx
	world    *world
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pgxsuite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	s := &suite{packages: []string{".", "pgconn", "pgproto3", "pgtype", "pgtype/zeronull", "pgxpool", "stdlib", "tracelog"}}
	flags := flag.NewFlagSet("pgxsuite", flag.ContinueOnError)
	ways := flags.String("ways", "straight,pass,proxy,direct", "what to run; straight is needed to compare")
	packages := flags.String("packages", "", "which packages of pgx, by folder; empty for all that need a server")
	flags.StringVar(&s.pattern, "run", "", "which tests, as for go test; the table is not checked for completeness")
	flags.BoolVar(&s.keep, "keep", false, "keep the copy of pgx and what the tests have printed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.ways = strings.Split(*ways, ","); s.ways[0] != straight {
		return fmt.Errorf("-ways %s: expected straight first", *ways)
	}
	if *packages != "" {
		s.packages = strings.Split(*packages, ",")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	if s.dir, err = os.MkdirTemp("", "pgxsuite-"); err != nil {
		return err
	}
	defer func() {
		if !s.keep {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
	}()
	return s.runInLab(ctx)
}

func (s *suite) runInLab(ctx context.Context) (err error) {
	if err := s.build(ctx); err != nil {
		return err
	}
	lab, err := agenttest.New(ctx, "client", "db")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if s.world, err = newWorld(ctx, lab, s.dir); err != nil {
		return err
	}
	all := map[string]outcomes{}
	for _, way := range s.ways {
		if all[way], err = s.runWay(ctx, way); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
	}
	return s.compare(ctx, all)
}

// runWay runs all packages on one way.
func (s *suite) runWay(ctx context.Context, way string) (outcomes, error) {
	before, err := s.world.asked(ctx)
	if err != nil {
		return nil, err
	}
	got := outcomes{}
	for _, pkg := range s.packages {
		if err := s.runPackage(ctx, way, pkg, s.pattern, got); err != nil {
			return nil, err
		}
	}
	after, err := s.world.asked(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Printf("%-9s%s; conmgr was asked %d times\n", way, got.count(), after-before)
	if (after > before) != (way == direct) {
		return nil, errors.New("that is not this way")
	}
	return got, nil
}

// compare prints what differs from straight.
func (s *suite) compare(ctx context.Context, all map[string]outcomes) error {
	var wrong []error
	different := 0
	for _, way := range s.ways[1:] {
		found := map[string]bool{}
		for _, name := range all[straight].differing(all[way]) {
			is, err := s.differs(ctx, way, name)
			if err != nil {
				return err
			}
			if is == "" {
				continue
			}
			different++
			found[name] = true
			why, known := reasonFor(way, name)
			if !known {
				why = "NOT EXPECTED"
				wrong = append(wrong, fmt.Errorf("%s: %s: %s", way, name, is))
			}
			fmt.Printf("%-9s%s: %s: %s\n", way, name, is, why)
		}
		for _, d := range differences {
			if s.pattern == "" && slices.Contains(d.ways, way) && slices.Contains(s.packages, d.folder()) && !d.matchesAny(found) {
				wrong = append(wrong, fmt.Errorf("%s: %s is as straight, but stands in differences.go", way, d.test))
			}
		}
	}
	n := len(all[straight])
	fmt.Printf("pgx: %d tests on %d ways, %d differences, %d of them not expected\n", n, len(s.ways), different, len(wrong))
	return errors.Join(wrong...)
}

// differs runs one test again on both ways until both agree, three times at most,
// and says how they do not; "" is that they do.
func (s *suite) differs(ctx context.Context, way, name string) (string, error) {
	pkg, test, _ := strings.Cut(name, ":")
	exact := "^" + strings.ReplaceAll(test, "/", "$/^") + "$"
	said := ""
	for range 3 {
		got := map[string]outcomes{straight: {}, way: {}}
		for w, o := range got {
			if err := s.runPackage(ctx, w, pkg, exact, o); err != nil {
				return "", err
			}
		}
		a, b := got[straight][name], got[way][name]
		if a == b {
			return "", nil
		}
		said = fmt.Sprintf("straight %s, here %s", word(a), word(b))
	}
	return said, nil
}
