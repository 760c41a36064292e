// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Parts of conmgr's need of file descriptors.
const (
	descriptorsBase     = 9  // the seed's constant: standard streams, epoll, listeners, files
	descriptorsInstance = 2  // heartbeat and second opinion
	descriptorsReserve  = 64 // consoles on conmgr.sock, name resolution, relay loops (two each), room to close politely
)

// descriptorsFixed is the need without any application.
func descriptorsFixed(c *Config) uint64 {
	return descriptorsBase + descriptorsInstance*uint64(len(c.Backends)) + descriptorsReserve
}

// descriptorsApplication is what one application takes: one on the console, two
// where there are pass-through ports. Proxy mode takes two as well, but whether
// it is used is not configured: see DescriptorsWarning.
func descriptorsApplication(c *Config) uint64 {
	if len(c.ProxyListen) > 0 {
		return 2
	}
	return 1
}

// Descriptors returns how many file descriptors conmgr needs for a configuration:
// 9 + 2 per instance + 64, and for max_connections applications 1 each, or 2 when
// there are pass-through ports.
func Descriptors(c *Config) uint64 {
	return descriptorsFixed(c) + descriptorsApplication(c)*uint64(c.MaxConnections)
}

// DescriptorsLeft returns how many file descriptors of a limit applications may
// use in all, one per console and two per passed-through connection. It is what
// ends accepting when max_connections is 0.
func (c *Config) DescriptorsLeft(limit uint64) uint64 {
	if fixed := descriptorsFixed(c); limit > fixed {
		return limit - fixed
	}
	return 0
}

// CheckDescriptors reports as an error when a limit on file descriptors cannot
// carry a configuration.
func (c *Config) CheckDescriptors(limit uint64) error {
	need := Descriptors(c)
	if c.MaxConnections == 0 {
		need += descriptorsApplication(c) // of what use is a conmgr without an application
	}
	if need <= limit {
		return nil
	}
	return fmt.Errorf("file descriptors: %d needed (%d + %d for each of %d instances + %d in reserve + %d for each of max_connections = %d), limit %d: "+
		"raise the limit (ulimit -n, LimitNOFILE) or lower max_connections",
		need, descriptorsBase, descriptorsInstance, len(c.Backends), descriptorsReserve, descriptorsApplication(c), c.MaxConnections, limit)
}

// DescriptorsWarning warns, with ok, of a limit on file descriptors that carries
// max_connections applications on the console, but not as many in proxy mode.
// What is too much then is closed when it comes.
func (c *Config) DescriptorsWarning(limit uint64) (w Warning, ok bool) {
	const proxied = 2
	fit := c.DescriptorsLeft(limit) / proxied
	if c.MaxConnections == 0 || uint64(c.MaxConnections) <= fit {
		return "", false
	}
	return Warning(fmt.Sprintf("file descriptors: a limit of %d carries %d applications in proxy mode, fewer than max_connections = %d: "+
		"raise the limit (ulimit -n, LimitNOFILE) if that many are to be proxied", limit, fit, c.MaxConnections)), true
}

// RaiseDescriptors raises the process's soft limit on file descriptors to its hard
// limit (setrlimit(2)) and returns the limit that then holds.
func RaiseDescriptors() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit on file descriptors: %w", err)
	}
	if limit.Cur == limit.Max {
		return limit.Cur, nil
	}
	raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return limit.Cur, fmt.Errorf("raise the limit on file descriptors from %d to %d: %w", limit.Cur, limit.Max, err)
	}
	return raised.Cur, nil
}
