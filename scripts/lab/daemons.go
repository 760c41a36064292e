// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// params are heartbeats quick enough to watch and slow enough for a laptop, and
// a pass-through port to each role.
var params = map[string]string{
	"heartbeat_interval": "250ms", "heartbeat_timeout": "1s",
	"proxy_listen": "'27551:primary, 27552:standby'",
}

// StartDaemons starts pgwatchdog beside each instance and conmgr on each host
// that has none. What runs already is left alone.
func (k *keeper) StartDaemons(ctx context.Context) error {
	root, err := agenttest.ModuleRoot()
	if err != nil {
		return err
	}
	for _, name := range []string{"pgwatchdog", "conmgr"} {
		if _, err := os.Stat(filepath.Join(root, "cmd", name)); err != nil {
			k.say(report{Text: name + " is not in this tree: no daemons"})
			return nil
		}
	}
	for _, p := range k.instances {
		if running(p.Host, p.Name+"-watchdog") {
			continue
		}
		if _, err := p.StartWatchdog(ctx, agenttest.WatchdogOptions{}); err != nil {
			return err
		}
		k.say(report{Text: p.Host.Name + ": pgwatchdog"})
	}
	return k.startConmgrs(ctx)
}

func (k *keeper) startConmgrs(ctx context.Context) error {
	if k.conmgrs == nil {
		for _, h := range k.lab.Hosts() {
			if strings.HasPrefix(h.Name, "db") {
				continue
			}
			c, err := h.NewConmgr(agenttest.ConmgrOptions{Instances: k.instances, Params: params})
			if err != nil {
				return err
			}
			k.conmgrs = append(k.conmgrs, c)
		}
	}
	for _, c := range k.conmgrs {
		if running(c.Host, "conmgr") {
			continue
		}
		if err := c.Start(ctx); err != nil {
			return err
		}
		k.say(report{Text: fmt.Sprintf("%s: conmgr in %s", c.Host.Name, c.Dir)})
	}
	return nil
}

func running(h *agenttest.Host, name string) bool {
	p, err := h.Process(name)
	return err == nil && p.Running()
}
