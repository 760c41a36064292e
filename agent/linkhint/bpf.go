// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"log/slog"
	"slices"
)

var errNotBuiltIn = errors.New("not built in")

// openBPF has no program to load.
func openBPF(_ *slog.Logger, without []Source) (carrierSource, []Missing) {
	var missing []Missing
	for _, s := range []Source{Fentry, Kprobe} {
		if !slices.Contains(without, s) {
			missing = append(missing, Missing{Source: s, Err: errNotBuiltIn, Hint: "use a build with the BPF programs"})
		}
	}
	return nil, missing
}
