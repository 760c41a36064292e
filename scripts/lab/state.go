// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// runDir holds a state file, a socket and a log for each named lab.
const runDir = "/run/pgconmgr-lab"

func statePath(name string) string  { return filepath.Join(runDir, name+".json") }
func socketPath(name string) string { return filepath.Join(runDir, name+".sock") }
func logPath(name string) string    { return filepath.Join(runDir, name+".log") }

var errNotUp = errors.New("the lab is not up: lab up")

// state is what the verbs that run beside the keeper need to know.
type state struct {
	Keeper int                  `json:"keeper"`
	Lab    string               `json:"lab"`
	Dir    string               `json:"dir"`
	Hosts  map[string]hostState `json:"hosts"`
}

type hostState struct {
	Namespace string `json:"namespace"`
	Cgroup    string `json:"cgroup"`
	Addr4     string `json:"addr4"`
	Addr6     string `json:"addr6"`
}

func writeState(name string, l *agenttest.Lab) error {
	s := state{Keeper: os.Getpid(), Lab: l.ID(), Dir: l.Dir, Hosts: make(map[string]hostState)}
	for _, h := range l.Hosts() {
		s.Hosts[h.Name] = hostState{
			Namespace: h.Namespace(), Cgroup: h.Cgroup(), Addr4: h.Addr4.String(), Addr6: h.Addr6.String(),
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(statePath(name), append(text, '\n'), 0o644)
}

// readState returns errNotUp when there is no lab, also after its keeper was
// killed: what that left is removed now.
func readState(name string) (*state, error) {
	text, err := os.ReadFile(statePath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotUp
	}
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", statePath(name), err)
	}
	conn, err := net.Dial("unix", socketPath(name))
	if err == nil {
		return s, conn.Close()
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.Keeper)); err == nil {
		return s, nil // it is just ending
	}
	_, err = agenttest.Sweep(context.Background())
	removeState(name)
	return nil, errors.Join(errNotUp, err)
}

func removeState(name string) {
	_ = os.Remove(statePath(name))
	_ = os.Remove(socketPath(name))
}

// request and answer are the two lines of one connection to the keeper.
type request struct {
	Args []string `json:"args"`
}

type answer struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

// ask sends a verb to the keeper and returns its answer.
func ask(ctx context.Context, name string, args []string) (string, error) {
	if _, err := readState(name); err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(name))
	if err != nil {
		return "", errors.Join(errNotUp, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := json.NewEncoder(conn).Encode(request{Args: args}); err != nil {
		return "", err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return "", fmt.Errorf("answer of the keeper: %w", err)
	}
	if a.Error != "" {
		return a.Text, errors.New(a.Error)
	}
	return a.Text, nil
}

// inside replaces this process by a command in a host.
func inside(name string, args []string) error {
	s, err := readState(name)
	if err != nil {
		return err
	}
	if len(args) < 2 || args[0] == "exec" && len(args) < 3 {
		return fmt.Errorf("%s: expected a host%s", args[0], map[bool]string{true: " and a command"}[args[0] == "exec"])
	}
	h, ok := s.Hosts[args[1]]
	if !ok {
		return fmt.Errorf("no host %q in the lab", args[1])
	}
	command := args[2:]
	if args[0] == "shell" {
		command = []string{"/bin/bash"}
	}
	// A frozen host freezes what joins it.
	if err := os.WriteFile(filepath.Join(h.Cgroup, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		return err
	}
	argv := append([]string{"ip", "netns", "exec", h.Namespace}, command...)
	env := append(os.Environ(), "PS1="+args[1]+":\\w\\$ ", "LAB_HOST="+args[1])
	return fmt.Errorf("%s: %w", strings.Join(argv, " "), syscall.Exec(ip, argv, env))
}
