// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"os"
	"testing"
)

// WorldForExample is a conmgr with one instance, for the examples: the connection
// string of conmgr, how the instance is lost, and how all ends.
func WorldForExample() (connString string, lose, stop func()) {
	t := &exampleTB{}
	f := mustFleet(t, instanceOf(0, mustPostgres(t, nil)))
	return f.dsn("target_session_attrs=primary"), func() { f.lose(0, "timeout") }, t.end
}

// exampleTB is the testing.TB of an example, which has none.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (t *exampleTB) Helper()          {}
func (t *exampleTB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }
func (t *exampleTB) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

func (t *exampleTB) end() {
	for i := range t.cleanups {
		t.cleanups[len(t.cleanups)-1-i]()
	}
}
