// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// difference is a test that says something else than straight, and why.
type difference struct {
	ways []string
	test string // package:test; subtests are included
	why  string
}

// In proxy mode the application's port declines TLS: that hop is loopback, and the
// one to the instance is encrypted by conmgr itself (proxy_sslmode).
const noTLS = "port 27546 declines TLS; pass-through ports have it end to end"

var differences = []difference{
	{[]string{direct}, "pgconn:TestConnectCustomLookup", "conmgr tells the address of the instance; its own port is found without a resolver"},
	{[]string{proxy}, "pgconn:TestConnectTLS", noTLS},
	{[]string{proxy}, "pgconn:TestConnectTLSPasswordProtectedClientCertWithSSLPassword", noTLS},
	{[]string{proxy}, "pgconn:TestConnectTLSPasswordProtectedClientCertWithGetSSLPasswordConfigOption", noTLS},
}

// reasonFor finds a difference in the table.
func reasonFor(way, name string) (why string, known bool) {
	for _, d := range differences {
		if slices.Contains(d.ways, way) && d.matches(name) {
			return d.why, true
		}
	}
	return "", false
}

func (d difference) matches(name string) bool {
	return name == d.test || strings.HasPrefix(name, d.test+"/")
}

func (d difference) matchesAny(names map[string]bool) bool {
	for name := range names {
		if d.matches(name) {
			return true
		}
	}
	return false
}

// folder is that of the package.
func (d difference) folder() string {
	folder, _, _ := strings.Cut(d.test, ":")
	return folder
}
