// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// verb is what the keeper does when asked; args counts the words behind HOST.
type verb struct {
	args int
	do   func(k *keeper, ctx context.Context, h *agenttest.Host, args []string) (string, error)
}

var verbs = map[string]verb{
	"cut":        fault(packets, "cut", (*agenttest.Host).Cut),
	"cut-in":     fault(packets, "deaf", (*agenttest.Host).CutIn),
	"cut-out":    fault(packets, "mute", (*agenttest.Host).CutOut),
	"heal":       fault(packets, "", (*agenttest.Host).Heal),
	"loss":       {2, (*keeper).loss},
	"unplug":     fault(cable, "unplugged", (*agenttest.Host).Unplug),
	"plug":       fault(cable, "", (*agenttest.Host).Plug),
	"freeze":     fault(power, "frozen", (*agenttest.Host).Freeze),
	"thaw":       fault(power, "", (*agenttest.Host).Thaw),
	"pause":      {1, onProcess((*agenttest.Process).Pause)},
	"resume":     {1, onProcess((*agenttest.Process).Resume)},
	"kill":       {1, (*keeper).kill},
	"start":      {0, (*keeper).start},
	"promote":    {0, (*keeper).promote},
	"bring-back": {0, (*keeper).bringBack},
	"log":        {1, (*keeper).log},
}

// do carries out one verb.
func (k *keeper) do(ctx context.Context, args []string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	switch args[0] {
	case "status":
		return k.status(ctx), nil
	case "down":
		return "", nil
	}
	v, ok := verbs[args[0]]
	if !ok {
		return "", fmt.Errorf("unknown verb %q: lab help", args[0])
	}
	if len(args) != 2+v.args {
		return "", fmt.Errorf("%s: expected a host and %d more words: lab help", args[0], v.args)
	}
	for _, h := range k.lab.Hosts() {
		if h.Name == args[1] {
			return v.do(k, ctx, h, args[2:])
		}
	}
	return "", fmt.Errorf("no host %q in the lab", args[1])
}

// kind tells faults that exist beside each other.
type kind int

const (
	packets kind = iota
	cable
	power
)

// fault makes a verb of a fault of a host; note is shown by status, "" ends it.
func fault(of kind, note string, apply func(*agenttest.Host, context.Context) (agenttest.Effect, error)) verb {
	return verb{0, func(k *keeper, ctx context.Context, h *agenttest.Host, _ []string) (string, error) {
		e, err := apply(h, ctx)
		if err == nil {
			k.note(h, of, note)
		}
		return took(e), err
	}}
}

// note remembers a fault for status.
func (k *keeper) note(h *agenttest.Host, of kind, note string) {
	notes := k.faults[h.Name]
	notes[of] = note
	k.faults[h.Name] = notes
}

func took(e agenttest.Effect) string {
	return fmt.Sprintf("took effect within %v\n", e.After.Sub(e.Before).Round(10*time.Microsecond))
}

func (k *keeper) loss(ctx context.Context, h *agenttest.Host, args []string) (string, error) {
	in, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return "", fmt.Errorf("loss: %w", err)
	}
	out, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return "", fmt.Errorf("loss: %w", err)
	}
	e, err := h.Loss(ctx, in, out)
	if err == nil {
		k.note(h, packets, fmt.Sprintf("loses %v %% in, %v %% out", in, out))
	}
	return took(e), err
}

// onProcess makes a verb of what can be done to a process.
func onProcess(f func(*agenttest.Process) (agenttest.Effect, error)) func(*keeper, context.Context, *agenttest.Host, []string) (string, error) {
	return func(_ *keeper, _ context.Context, h *agenttest.Host, args []string) (string, error) {
		p, err := h.Process(args[0])
		if err != nil {
			return "", err
		}
		e, err := f(p)
		return took(e), err
	}
}

func (k *keeper) kill(ctx context.Context, h *agenttest.Host, args []string) (string, error) {
	p, err := h.Process(args[0])
	if err != nil {
		return "", err
	}
	e, err := p.Kill(ctx)
	return took(e), err
}

func (k *keeper) log(_ context.Context, h *agenttest.Host, args []string) (string, error) {
	p, err := h.Process(args[0])
	if err != nil {
		return "", err
	}
	return p.Log()
}

// start starts the instance of the host, and all daemons, if they have ended.
func (k *keeper) start(ctx context.Context, h *agenttest.Host, _ []string) (string, error) {
	for _, p := range k.instances {
		if p.Host == h && !p.Process().Running() {
			if err := p.Start(ctx); err != nil {
				return "", err
			}
		}
	}
	return "", k.StartDaemons(ctx)
}

func (k *keeper) instanceOf(h *agenttest.Host) (*agenttest.Postgres, error) {
	for _, p := range k.instances {
		if p.Host == h {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s has no instance", h.Name)
}

func (k *keeper) promote(ctx context.Context, h *agenttest.Host, _ []string) (string, error) {
	p, err := k.instanceOf(h)
	if err != nil {
		return "", err
	}
	e, err := p.Promote(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s accepts writes after %v\n", h.Name, e.After.Sub(e.Before).Round(time.Millisecond)), nil
}

// bringBack ends every fault of the host and makes its instance a standby of
// the primary that there is now.
func (k *keeper) bringBack(ctx context.Context, h *agenttest.Host, _ []string) (string, error) {
	p, err := k.instanceOf(h)
	if err != nil {
		return "", err
	}
	_, healed := h.Heal(ctx)
	_, plugged := h.Plug(ctx)
	_, thawed := h.Thaw(ctx)
	if err := errors.Join(healed, plugged, thawed); err != nil {
		return "", err
	}
	delete(k.faults, h.Name)
	for _, other := range k.instances {
		if other == p {
			continue
		}
		if standby, err := other.InRecovery(ctx); err == nil && !standby {
			how, err := p.Rejoin(ctx, other)
			return fmt.Sprintf("%s follows %s (%s)\n", h.Name, other.Host.Name, how), err
		}
	}
	return "", errors.New("no other instance is a primary: lab promote HOST first")
}

// status never fails: what cannot be learned is said in its place.
func (k *keeper) status(ctx context.Context) string {
	var b strings.Builder
	for _, h := range k.lab.Hosts() {
		fmt.Fprintf(&b, "%-8s %-10v %-9v", h.Name, h.Addr4, h.Addr6)
		d, err := h.Dropped(ctx)
		if err != nil {
			fmt.Fprintf(&b, " %v", err)
		} else if d.In+d.Out > 0 {
			fmt.Fprintf(&b, " dropped %d in, %d out", d.In, d.Out)
		}
		for _, note := range k.faults[h.Name] {
			if note != "" {
				b.WriteString("  " + strings.ToUpper(note))
			}
		}
		b.WriteString("\n")
		k.statusOfHost(ctx, h, &b)
	}
	for _, c := range k.conmgrs {
		if !running(c.Host, "conmgr") || k.faults[c.Host.Name][power] != "" {
			continue
		}
		out, err := c.Ctl(ctx, "status")
		fmt.Fprintf(&b, "conmgr on %s:\n%s", c.Host.Name, out)
		if err != nil && out == "" {
			fmt.Fprintf(&b, "%v\n", err)
		}
	}
	return b.String()
}

func (k *keeper) statusOfHost(ctx context.Context, h *agenttest.Host, b *strings.Builder) {
	if p, err := k.instanceOf(h); err == nil {
		fmt.Fprintf(b, "  %-20s %s, port %d, %s\n", p.Name, k.role(ctx, p), p.Port, p.DSN())
	}
	for _, name := range []string{"postgres-watchdog", "conmgr"} {
		p, err := h.Process(name)
		if err != nil {
			continue
		}
		word := "ended"
		if p.Running() {
			word = fmt.Sprintf("pid %d", p.Pid())
		}
		fmt.Fprintf(b, "  %-20s %s, log %s\n", name, word, p.LogPath)
	}
}

// role says what an instance is, within a second even when it is frozen.
func (k *keeper) role(ctx context.Context, p *agenttest.Postgres) string {
	if !p.Process().Running() {
		return "ended"
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	standby, err := p.InRecovery(ctx)
	switch {
	case err != nil:
		return "no answer"
	case standby:
		return "standby"
	}
	return "primary"
}
