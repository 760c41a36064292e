// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// syslogFacilities are LOG_LOCAL0 to LOG_LOCAL7 by their numbers from 16.
var syslogFacilities = []string{"LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7"}

// maxHostName is the longest name that DNS carries (RFC 1035 section 2.3.4).
const maxHostName = 253

// checkHost looks at the form of a host name; whether it resolves is found out
// later, in the background.
func checkHost(s string) error {
	if s == "" {
		return nil
	}
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") {
		return errors.New("expected a host name or an address, found a Unix socket: an instance on another host is reached by TCP")
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return checkAddr(s)
	}
	if len(s) > maxHostName {
		return fmt.Errorf("expected a host name of at most %d characters, found %d", maxHostName, len(s))
	}
	for _, r := range s {
		if !isHostRune(r) {
			return fmt.Errorf("expected one host name or address without port, found %q in it", r)
		}
	}
	return nil
}

// isHostRune accepts what resolvers accept, names in other scripts included.
func isHostRune(r rune) bool {
	return r >= 0x80 || r == '-' || r == '.' || r == '_' ||
		'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

func checkAddr(s string) error {
	if s == "" {
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("expected an IPv4 or IPv6 address, found %.60q", s)
	}
	if a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("expected the address of one host, found %s", a)
	}
	return nil
}

func checkListen(s string) error {
	list, err := conf.ParseList(s)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("expected localhost, other names, addresses or *")
	}
	for _, item := range list {
		if _, err := netip.ParseAddr(item); item == "*" || err == nil {
			continue
		}
		if err := checkHost(item); err != nil {
			return err
		}
	}
	return nil
}

func checkLogDestination(s string) error {
	list, err := conf.ParseList(s)
	if err != nil || len(list) == 0 {
		return errors.New("expected stderr, syslog or both")
	}
	for _, item := range list {
		if _, err := conf.ParseWord(item, []string{"stderr", "syslog"}); err != nil {
			return err
		}
	}
	return nil
}

// checkIdent accepts what a syslog daemon can tell apart from the message.
func checkIdent(s string) error {
	if s == "" || len(s) > 48 {
		return fmt.Errorf("expected 1 to 48 characters, found %d", len(s))
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(":[]", r) {
			return fmt.Errorf("expected a word in ASCII without blanks, colons and brackets, found %q", r)
		}
	}
	return nil
}

func checkSystemIdentifier(s string) error {
	if _, err := strconv.ParseUint(s, 10, 64); err != nil {
		return fmt.Errorf("expected the decimal number that pg_controldata shows, or 0, found %.60q", s)
	}
	return nil
}

func checkRootCert(s string) error {
	if s != "" && s != systemRoots && !filepath.IsAbs(s) {
		return fmt.Errorf("expected an absolute path or system, found %.60q", s)
	}
	return nil
}

func checkTarget(s string) error {
	_, err := ParseTarget(s)
	return err
}

func checkProxyListen(s string) error {
	_, err := parseProxyListen(s)
	return err
}

// parseProxyListen reads "port:target, port:target".
func parseProxyListen(s string) ([]ProxyPort, error) {
	list, err := conf.ParseList(s)
	if err != nil {
		return nil, err
	}
	if len(list) > MaxProxyPorts {
		return nil, fmt.Errorf("expected at most %d ports, found %d", MaxProxyPorts, len(list))
	}
	ports := make([]ProxyPort, 0, len(list))
	seen := make(map[uint16]bool)
	for _, item := range list {
		port, target, found := strings.Cut(item, ":")
		if !found {
			return nil, fmt.Errorf("expected port:target as 27551:primary, found %.60q", item)
		}
		n, err := conf.ParseInt(strings.TrimSpace(port), 1, 65535)
		if err != nil {
			return nil, fmt.Errorf("port: %w", err)
		}
		t, err := ParseTarget(strings.TrimSpace(target))
		if err != nil {
			return nil, err
		}
		if seen[uint16(n)] {
			return nil, fmt.Errorf("port %d stands there twice", n)
		}
		seen[uint16(n)] = true
		ports = append(ports, ProxyPort{Port: uint16(n), Target: t})
	}
	return ports, nil
}

func checkProxyAllow(s string) error {
	_, err := parseProxyAllow(s)
	return err
}

// parseProxyAllow reads addresses and CIDR blocks. IPv4 addresses that are mapped
// into IPv6 are refused, since they would never match.
func parseProxyAllow(s string) ([]netip.Prefix, error) {
	list, err := conf.ParseList(s)
	if err != nil {
		return nil, err
	}
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, item := range list {
		p, err := netip.ParsePrefix(item)
		if a, aerr := netip.ParseAddr(item); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return nil, fmt.Errorf("expected an address or block as 192.0.2.0/24, found %.60q", item)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("bits are set behind the mask of %s: expected %s", p, p.Masked())
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

func checkEndpoints(s string) error {
	_, err := conf.ParseEndpoints(s)
	return err
}

func checkKeyFile(s string) error {
	if s != "" && !strings.HasPrefix(s, "/") {
		return errors.New("expected an absolute path")
	}
	return nil
}
