// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// check reads conmgr.conf as a start would, and starts nothing.
func check(e env, d *conmgr.Directory, _ options) int {
	config, warnings, err := conmgr.Load(d.ConfigPath())
	if err != nil {
		return fail(e, err)
	}
	for _, w := range warnings {
		warn(e, "%s", w)
	}
	limit, err := conmgr.RaiseDescriptors()
	if err != nil {
		warn(e, "%v", err)
	}
	if err := config.CheckDescriptors(limit); err != nil {
		return fail(e, err)
	}
	if w, ok := config.DescriptorsWarning(limit); ok {
		warnings = append(warnings, w)
		warn(e, "%s", w)
	}
	fmt.Fprintf(e.stdout, "%s is valid: %d instances, %d warnings\n", d.ConfigPath(), len(config.Backends), len(warnings))
	return cli.ExitOK
}
