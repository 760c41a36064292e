// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Endpoint is a place to listen at: "port", "host:port" or "*:port".
type Endpoint struct {
	Host string // a name or an address; "*" is every address, "localhost" goes without saying
	Port uint16
}

// String is the endpoint as it is written.
func (e Endpoint) String() string {
	if strings.Contains(e.Host, ":") {
		return fmt.Sprintf("[%s]:%d", e.Host, e.Port)
	}
	return fmt.Sprintf("%s:%d", e.Host, e.Port)
}

// maxEndpoints bounds a list of places to listen at.
const maxEndpoints = 8

// ParseEndpoints reads a list of places to listen at. A bare port means localhost.
// Names are not resolved.
func ParseEndpoints(s string) ([]Endpoint, error) {
	list, err := ParseList(s)
	if err != nil {
		return nil, err
	}
	if len(list) > maxEndpoints {
		return nil, fmt.Errorf("expected at most %d addresses, found %d", maxEndpoints, len(list))
	}
	endpoints := make([]Endpoint, 0, len(list))
	for _, item := range list {
		e, err := parseEndpoint(item)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

func parseEndpoint(s string) (e Endpoint, err error) {
	host, port := "localhost", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
	}
	n, err := ParseInt(port, 1, 65535)
	if err != nil {
		return e, fmt.Errorf("expected a port, host:port or *:port, found %.60q: %w", s, err)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		host = inner
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || !closed {
			return e, fmt.Errorf("expected an IPv6 address in brackets, found %.60q", s)
		}
	}
	switch {
	case host == "":
		return e, fmt.Errorf("no host in %.60q: expected *%s for every address", s, s)
	case strings.ContainsAny(host, "[]/@ \t") || strings.Contains(host, ":") && !strings.HasPrefix(s, "["):
		return e, errors.New("expected a name, an IPv4 address, an IPv6 address in brackets or * in front of the port")
	}
	return Endpoint{Host: host, Port: uint16(n)}, nil
}
