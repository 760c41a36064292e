// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// settle is how long everything is left alone before it is measured.
const settle = 10 * time.Second

// armPatience bounds the wait for all sessions.
const armPatience = 2 * time.Minute

// loads are the running load processes.
type loads struct {
	all []*loadProcess
}

type loadProcess struct {
	cmd *agenttest.Cmd

	mu           sync.Mutex // guards the following
	armed, ended int
	err          error
}

func (l *loads) add(cmd *agenttest.Cmd) error {
	p := &loadProcess{cmd: cmd}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := pin(cmd.Process.Pid, loadCore); err != nil {
		return err
	}
	l.all = append(l.all, p)
	go p.listen(out)
	return nil
}

// listen keeps the last line that the process has written.
func (p *loadProcess) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var armed, ended int
		_, err := fmt.Sscan(lines.Text(), &armed, &ended)
		p.mu.Lock()
		p.armed, p.ended, p.err = armed, ended, err
		p.mu.Unlock()
	}
}

func (l *loads) sum() (armed, ended int, err error) {
	for _, p := range l.all {
		p.mu.Lock()
		armed, ended = armed+p.armed, ended+p.ended
		if p.err != nil {
			err = p.err
		}
		p.mu.Unlock()
	}
	return armed, ended, err
}

func (l *loads) awaitArmed(ctx context.Context, n int) error {
	for end := time.Now().Add(armPatience); ; {
		armed, ended, err := l.sum()
		switch {
		case err != nil:
			return err
		case armed == n:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d sessions armed and %d ended after %v: expected %d armed", armed, ended, armPatience, n)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// ended returns how many sessions have ended, with what the last second brought.
func (l *loads) ended() (int, error) {
	if err := pause(context.Background(), 1500*time.Millisecond); err != nil {
		return 0, err
	}
	_, ended, err := l.sum()
	return ended, err
}

func (l *loads) stop() {
	for _, p := range l.all {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
