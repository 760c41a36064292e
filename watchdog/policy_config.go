// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// policy is the docket's view of the configuration, whose words the table has
// checked.
func (c *Config) policy(protected func(netip.Addr) bool) PolicyConfig {
	p := PolicyConfig{DryRun: c.DryRun, Protected: protected}
	for _, w := range []struct {
		action *Action
		word   string
	}{
		{&p.OnTimeout, c.OnTimeout}, {&p.OnHang, c.OnHang},
		{&p.OnDisconnect, c.OnDisconnect}, {&p.OnShutdown, c.OnShutdown},
	} {
		must(w.action.UnmarshalText([]byte(w.word)))
	}
	must(p.SharedAddress.UnmarshalText([]byte(c.SharedAddress)))
	must(p.TerminateReplication.UnmarshalText([]byte(c.TerminateReplication)))
	return p
}

// must panics: the parameter table and the policy's words have parted.
func must(err error) {
	if err != nil {
		panic("watchdog: " + err.Error())
	}
}

// CheckNames refuses settings whose name is no parameter: in a file or on the
// command line of our own a misspelt name is an error.
func CheckNames(entries []conf.Entry) error {
	var errs []error
	for _, e := range entries {
		if !slices.Contains(parameterNames(), e.Name) {
			errs = append(errs, fmt.Errorf("%s: unknown parameter %q: expected one of watchdog's", place(e), e.Name))
		}
	}
	return errors.Join(errs...)
}

// CheckValues refuses settings with a bad value.
func CheckValues(entries []conf.Entry) error {
	_, err := parameters.Read(entries)
	return err
}
