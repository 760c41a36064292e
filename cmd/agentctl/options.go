// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// parseFlags reads the command line of a command that takes no arguments.
func parseFlags(flags *pflag.FlagSet, args []string) error {
	words, err := parseWords(flags, args)
	if err == nil && len(words) > 0 {
		err = usageError("unexpected argument %q: expected options only", words[0])
	}
	return err
}

// parseWords reads a command line and returns its arguments.
func parseWords(flags *pflag.FlagSet, args []string) (words []string, err error) {
	err = flags.Parse(args)
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &invalid): // texts are checked later, so it is a switch
		return nil, usageError("--%s %q: expected true or false", invalid.GetFlag().Name, invalid.GetValue())
	case err != nil:
		return nil, usageError("%w", err)
	}
	return flags.Args(), nil
}

// parsePrefix reads an address or a prefix. An address can have a zone.
func parsePrefix(option, text string) (netip.Prefix, string, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, "", nil
	}
	a, err := parseAddr(option, text, "an address or a prefix, as 10.1.2.3 or 10.1.0.0/16")
	if err != nil {
		return netip.Prefix{}, "", err
	}
	zone := a.Zone()
	a = a.WithZone("").Unmap()
	return netip.PrefixFrom(a, a.BitLen()), zone, nil
}

// parseAddr reads the address of a host.
func parseAddr(option, text, expected string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Unmap().IsUnspecified() || a.Unmap().IsMulticast() {
		return a, usageError("%s %q: expected %s", option, text, expected)
	}
	return a, nil
}

// parsePorts reads ports, each a number or two numbers with a dash.
func parsePorts(texts []string) ([]sockdiag.PortRange, error) {
	var ports []sockdiag.PortRange
	for _, text := range texts {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if err := errors.Join(err1, err2); err != nil || lo == 0 || hi < lo {
			return nil, usageError("--port %q: expected a port from 1 to 65535, or two with a dash, as 5432-5440", text)
		}
		ports = append(ports, sockdiag.PortRange{First: uint16(lo), Last: uint16(hi)})
	}
	return ports, nil
}

// shownByDefault are the states of connections: what listens and what only
// waits for old packets to die is not asked about.
const shownByDefault = sockdiag.AllStates &^ (1<<sockdiag.Listen | 1<<sockdiag.TimeWait)

// parseStates reads states by the kernel's names in any spelling, or as ss(8)
// has them.
func parseStates(texts []string) (sockdiag.States, error) {
	if len(texts) == 0 {
		return shownByDefault, nil
	}
	var states sockdiag.States
	for _, word := range strings.Split(strings.Join(texts, ","), ",") {
		state, ok := statesByName[normalState(word)]
		if !ok {
			return 0, usageError("--state %q: expected all or states as %s", word, "established, close-wait, fin-wait1, syn-sent, time-wait, listen")
		}
		states |= state
	}
	return states, nil
}

func normalState(name string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
}

var statesByName = func() map[string]sockdiag.States {
	names := map[string]sockdiag.States{
		"all": sockdiag.AllStates, "listening": sockdiag.StatesOf(sockdiag.Listen),
		"estab": sockdiag.StatesOf(sockdiag.Established), "closed": sockdiag.StatesOf(sockdiag.Close),
	}
	for s := sockdiag.Established; s <= sockdiag.Closing; s++ {
		names[normalState(s.String())] = sockdiag.StatesOf(s)
	}
	return names
}()
