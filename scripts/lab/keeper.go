// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// report is one line of the keeper's to lab up.
type report struct {
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
	Ready bool   `json:"ready,omitempty"`
}

// keeper owns a lab and answers the verbs.
type keeper struct {
	name string
	lab  *agenttest.Lab
	say  func(report)
	stop context.CancelFunc

	mu        sync.Mutex // one verb at a time; guards the following
	instances []*agenttest.Postgres
	conmgrs   []*agenttest.Conmgr
	faults    map[string][power + 1]string // by host
}

// keep makes the lab, says so on descriptor 3, and serves until it is told to
// end.
func keep(ctx context.Context, name string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	hosts := flags.String("hosts", strings.Join(agenttest.DefaultHosts, ","), "")
	bare := flags.Bool("no-daemons", false, "")
	reports := os.NewFile(3, "reports")
	encoder := json.NewEncoder(reports)
	k := &keeper{
		name: name, faults: make(map[string][power + 1]string),
		say: func(r report) { _ = encoder.Encode(r) }, // nobody reads: lab up was interrupted
	}
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("up: unexpected argument %q", flags.Arg(0))
	}
	if err == nil {
		ctx, k.stop = context.WithCancel(ctx)
		defer k.stop()
		err = k.live(ctx, reports, strings.Split(*hosts, ","), !*bare)
	}
	if err != nil {
		k.say(report{Error: err.Error()})
	}
	return err
}

// live is the whole life of the lab.
func (k *keeper) live(ctx context.Context, reports *os.File, hosts []string, daemons bool) (err error) {
	if k.lab, err = agenttest.New(ctx, hosts...); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, k.lab.Close())
		removeState(k.name)
	}()
	if err := k.populate(ctx, daemons); err != nil {
		return err
	}
	_ = os.Remove(socketPath(k.name))
	listener, err := net.Listen("unix", socketPath(k.name))
	if err != nil {
		return err
	}
	if err := writeState(k.name, k.lab); err != nil {
		return err
	}
	k.say(report{Text: k.hints(), Ready: true})
	_ = reports.Close()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	return k.serve(ctx, listener)
}

// populate starts instances and daemons: hosts whose name starts with "db"
// have an instance, all others a conmgr.
func (k *keeper) populate(ctx context.Context, daemons bool) error {
	for _, h := range k.lab.Hosts() {
		if !strings.HasPrefix(h.Name, "db") {
			continue
		}
		var o agenttest.PostgresOptions
		role := "primary"
		if len(k.instances) > 0 {
			o.StreamFrom, role = k.instances[0], "standby"
		}
		start := time.Now()
		p, err := h.Postgres(ctx, o)
		if err != nil {
			return err
		}
		k.instances = append(k.instances, p)
		k.say(report{Text: fmt.Sprintf("%s: %s at %v (%.1fs)", h.Name, role, p.Addr(), time.Since(start).Seconds())})
	}
	if !daemons {
		return nil
	}
	return k.StartDaemons(ctx)
}

// serve answers one request after the other.
func (k *keeper) serve(ctx context.Context, listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go k.answer(ctx, conn)
	}
}

func (k *keeper) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil || len(r.Args) == 0 {
		return // a look whether the keeper is there
	}
	var a answer
	text, err := k.do(ctx, r.Args)
	a.Text = text
	if err != nil {
		a.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(a)
	if r.Args[0] == "down" {
		k.stop()
	}
}

func (k *keeper) hints() string {
	const text = `the lab is up; try
  lab status
  lab exec client psql -h localhost -p 27546 conmgr -c 'SHOW INSTANCES'
  lab exec client psql -h localhost -p 27551 -U postgres    # and SELECT pg_sleep(1000)
  lab cut db1         # the primary dies without a word
  lab promote db2
  lab bring-back db1
  lab down`
	return strings.ReplaceAll(text, "\n  lab ", "\n  "+os.Args[0]+" ")
}
