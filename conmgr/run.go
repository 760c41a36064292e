// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"log/slog"
)

// ErrImmediate as the cause of Run's cancelled context means: stop at once, tell
// nobody. Any other cause is a fast shutdown.
var ErrImmediate = errors.New("immediate shutdown requested")

// RunOptions are what a conmgr runs with.
type RunOptions struct {
	Config      *Config      // from Load
	Directory   *Directory   // claimed by the caller, who releases it after Run
	Log         *slog.Logger // nil discards
	Incarnation uint64       // differs from that of every earlier run in this directory
	Version     string
}

// Run is the whole life of a conmgr. It returns nil after a shutdown that was
// asked for, through ctx or through conmgr.sock.
func Run(ctx context.Context, _ RunOptions) error {
	<-ctx.Done()
	return nil
}
