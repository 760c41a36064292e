// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// childEnv makes this program a process with a Watcher for another one:
//
//	stdin:   "watch ADDR", "unwatch ADDR", a line each; its end ends the process
//	stdout:  a report a line; the first one says what the Watcher uses
//	stderr:  the log
const childEnv = "CM_TEST_WATCHER"

// childConfig is what of a Config another process can be told.
type childConfig struct {
	Without []Source
	All     bool
}

// report is what a child tells.
type report struct {
	Source    Source   `json:",omitempty"`
	Missing   []Source `json:",omitempty"`
	Event     Event
	Delivered int64
	Paths     []Path `json:",omitempty"`
}

// record takes over what the Watcher told.
func (r report) record(to *recorder) {
	if r.Event.Kind != 0 {
		to.add(stamped{r.Event, r.Delivered})
	}
	if len(r.Paths) > 0 {
		to.onPaths(r.Paths)
	}
}

// runChild returns the exit code.
func runChild() int {
	if err := watchForParent(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func watchForParent(in io.Reader, out, log io.Writer) error {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		return err
	}
	capabilities, err := effectiveCapabilities()
	if err != nil {
		return err
	}
	if capabilities != 0 || os.Geteuid() == 0 {
		return fmt.Errorf("user %d has the capabilities %x: expected none", os.Geteuid(), capabilities)
	}
	told := json.NewEncoder(out)
	w, err := New(Config{
		BPF: true, All: c.All, Without: c.Without, Log: slog.New(slog.NewTextHandler(log, nil)),
		OnEvent: func(e Event) { _ = told.Encode(report{Event: e, Delivered: int64(clock.Now())}) },
		OnPaths: func(p []Path) { _ = told.Encode(report{Paths: p}) },
	})
	if err != nil {
		return err
	}
	hello := report{Source: w.Source()}
	for _, m := range w.Missing() {
		hello.Missing = append(hello.Missing, m.Source)
	}
	if err := told.Encode(hello); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		obey(in, w)
	}()
	return w.Run(ctx)
}

// obey does what the parent says until it has no more to say.
func obey(in io.Reader, w *Watcher) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		word, addr, _ := strings.Cut(lines.Text(), " ")
		peer, err := netip.ParseAddr(addr)
		switch {
		case err != nil:
			return
		case word == "watch":
			w.Watch(peer)
		default:
			w.Unwatch(peer)
		}
	}
}
