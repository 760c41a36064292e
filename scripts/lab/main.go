// SPDX-License-Identifier: Apache-2.0

// Command lab keeps a laboratory to play with: client, db1 and db2 as network
// namespaces, a primary, its standby and the daemons between them. "lab up"
// leaves a keeper in the background, which owns everything; the other verbs ask
// it. When the keeper ends, however it ends, the lab is gone. See usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: lab [--name NAME] VERB [ARGUMENTS]     (root)

  up [--hosts client,db1,db2] [--no-daemons]
                        primary on the first db host, standbys on the others,
                        pgwatchdog beside each, conmgr on all other hosts
  status                hosts, faults, instances, daemons
  cut HOST              silent death: all packets dropped, nobody is told
  cut-in HOST           the host is deaf      cut-out HOST   the host is mute
  loss HOST IN OUT      percent of packets lost towards and from the host
  heal HOST             ends cut, cut-in, cut-out and loss
  unplug HOST           the cable loses its carrier;   plug HOST   ends it
  freeze HOST           all processes stop, as in a paused machine;   thaw HOST
  pause HOST PROCESS    SIGSTOP;   resume HOST PROCESS   SIGCONT
  kill HOST PROCESS     SIGKILL;   start HOST   starts what has ended
  promote HOST          makes a standby the primary
  bring-back HOST       heals the host; its instance becomes a standby
  exec HOST COMMAND...  runs a command there;   shell HOST   an interactive one
  log HOST PROCESS      what the process has written
  down                  ends the lab
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	name := "lab"
	if len(args) >= 2 && args[0] == "--name" {
		name, args = args[1], args[2:]
	}
	if strings.ContainsAny(name, "/.") || name == "" || name == "labs" || name == "lock" {
		return fmt.Errorf("name %q: expected a word without slash and dot", name)
	}
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" {
		fmt.Print(usage)
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "up":
		return up(ctx, name, args[1:])
	case "keep": // what up starts
		return keep(ctx, name, args[1:])
	case "exec", "shell":
		return inside(name, args)
	case "down":
		return down(ctx, name)
	}
	answer, err := ask(ctx, name, args)
	fmt.Print(answer)
	return err
}

// up starts the keeper in a session of its own and shows its progress.
func up(ctx context.Context, name string, args []string) error {
	if _, err := ask(ctx, name, []string{"status"}); !errors.Is(err, errNotUp) {
		return fmt.Errorf("lab %q is up already: lab status, lab down", name)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	log, err := os.Create(logPath(name))
	if err != nil {
		return err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	keeper := exec.Command(self, append([]string{"--name", name, "keep"}, args...)...)
	keeper.Stdout, keeper.Stderr = log, log
	keeper.ExtraFiles = []*os.File{write} // descriptor 3
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = keeper.Start()
	_ = write.Close()
	if err != nil {
		return err
	}
	return follow(ctx, keeper.Process, json.NewDecoder(read))
}

// follow prints what the keeper reports until it is ready or has failed.
func follow(ctx context.Context, keeper *os.Process, reports *json.Decoder) error {
	interrupted := context.AfterFunc(ctx, func() { _ = keeper.Signal(syscall.SIGTERM) })
	defer interrupted()
	for {
		var r report
		if err := reports.Decode(&r); err != nil {
			return fmt.Errorf("the keeper ended without a word: %w", err)
		}
		if r.Text != "" {
			fmt.Println(r.Text)
		}
		if r.Error != "" {
			return errors.New(r.Error)
		}
		if r.Ready {
			return nil
		}
	}
}

// down asks the keeper to end and waits until it has.
func down(ctx context.Context, name string) error {
	s, err := readState(name)
	if err != nil {
		return err
	}
	if _, err := ask(ctx, name, []string{"down"}); err != nil && !errors.Is(err, errNotUp) {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tick := time.Tick(10 * time.Millisecond); ; {
		if _, err := readState(name); errors.Is(err, errNotUp) {
			fmt.Printf("lab %q is gone\n", name)
			_ = os.Remove(logPath(name))
			return nil
		}
		select {
		case <-tick:
		case <-limit.Done():
			return fmt.Errorf("keeper %d has not ended: %w", s.Keeper, limit.Err())
		}
	}
}
