// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"testing"
)

func TestBrief(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain",
		"failed to connect to `user=a database=b`:\n\t127.0.0.1:1 (h): refused\n\t127.0.0.1:1 (h): refused": "failed to connect to `user=a database=b`: 127.0.0.1:1 (h): refused",
		"failed to connect:\n\th: tls error: server refused TLS connection\n\th: bad password":              "failed to connect: h: bad password",
		"one\ntwo": "one; two",
	} {
		if got := Brief(errors.New(text)); got != want {
			t.Errorf("Brief(%q) = %q: want %q", text, got, want)
		}
	}
}
