// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/pgconmgr/pgconmgr/conmgr"
)

// watchSignals returns a context that ends with the first signal to stop; its
// cause is conmgr.ErrImmediate after SIGQUIT, conmgr.ErrRestart after SIGUSR2. The second signal then has the
// default action. reload gets a value for each SIGHUP. stop ends the watching and waits for it.
func watchSignals(log *slog.Logger) (ctx context.Context, reload <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGHUP)
	// Otherwise a closed pipe behind stderr would kill (see os/signal, SIGPIPE).
	signal.Ignore(syscall.SIGPIPE)
	done := make(chan struct{})
	hups := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { handleSignals(signals, done, hups, cancel, log) })
	return ctx, hups, func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
		cancel(nil)
	}
}

func handleSignals(signals <-chan os.Signal, done <-chan struct{}, hups chan<- struct{}, cancel context.CancelCauseFunc, log *slog.Logger) {
	ctx := context.Background()
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				log.Log(ctx, conmgr.LevelLog, "received SIGHUP: the key file is read again, parameters of conmgr.conf need a restart")
				select {
				case hups <- struct{}{}:
				default: // one is waiting already
				}
				continue
			case syscall.SIGQUIT:
				log.Log(ctx, conmgr.LevelLog, "received immediate shutdown request")
				cancel(conmgr.ErrImmediate)
			case syscall.SIGUSR2:
				log.Log(ctx, conmgr.LevelLog, "received restart request")
				cancel(conmgr.ErrRestart)
			default:
				log.Log(ctx, conmgr.LevelLog, "received fast shutdown request")
				cancel(nil)
			}
			signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2)
		}
	}
}
