// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// Control sequences of every terminal since the VT100.
const (
	clearScreen = "\x1b[2J"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K" // from the cursor on: behind a full line it would take its last character
	clearBelow  = "\x1b[J"
)

// watchFlag adds --watch; what it says is read by parseWatch.
func watchFlag(flags *pflag.FlagSet) *string {
	every := flags.String("watch", "", "")
	flags.Lookup("watch").NoOptDefVal = "2s"
	return every
}

// parseWatch returns the time between two looks, 0 for one look.
func parseWatch(flags *pflag.FlagSet, text string) (time.Duration, error) {
	if !flags.Changed("watch") {
		return 0, nil
	}
	every, err := conf.ParseDuration(text, time.Second, 100*time.Millisecond, 24*time.Hour)
	if err != nil {
		return 0, usageError("--watch: %w", err)
	}
	return every, nil
}

// watch looks again and again until ctx ends, which is no error. A terminal is
// drawn anew; a pipe gets a block for each look, or its objects.
func watch(ctx context.Context, e *env, every time.Duration, json bool, look func(context.Context) (*picture, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	n := notes{e: e}
	for first := true; ; first = false {
		p, err := look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		switch columns, lines := e.size(); {
		case json:
			n.print(p.notes)
			err = p.json(e.stdout)
		case columns > 0:
			_, err = fmt.Fprint(e.stdout, p.frame(every, columns, lines, first))
		default:
			n.print(p.notes)
			err = p.printBlock(e, first)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
