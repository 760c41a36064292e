// SPDX-License-Identifier: Apache-2.0

package key

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Limits of a key file.
const (
	MaxFile    = 64 << 10 // bytes
	MaxKeys    = 64
	SecretSize = 32  // bytes that keygen makes, and the least that is taken
	maxSecret  = 128 // bytes
	maxErrors  = 10  // that are told at once
	minBytes   = 16  // different ones in a secret; 32 random bytes have 30
)

// Parse reads the text of a key file; file is its name for errors. All errors of
// the file are joined, each with its line. None repeats a word of the file before
// the line was found to be good: a secret in the wrong place stays a secret.
func Parse(file string, text []byte) (*Ring, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: expected at most %d bytes", file, MaxFile)
	}
	r := new(Ring)
	var errs []error
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		k, err := parseLine(line)
		if err == nil && k != nil {
			err = r.add(k)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, number, err))
		}
		if len(errs) == maxErrors {
			break
		}
	}
	if len(errs) == 0 && len(r.keys) == 0 {
		errs = append(errs, fmt.Errorf("%s: no key in it: expected a line of id and secret, as cm_ctl keygen makes it", file))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

func (r *Ring) add(k *Key) error {
	switch {
	case r.get(k.id) != nil:
		return fmt.Errorf("key id %s stands in the file twice", k)
	case len(r.keys) == MaxKeys:
		return fmt.Errorf("too many keys: expected at most %d", MaxKeys)
	}
	r.keys = append(r.keys, k)
	return nil
}

// parseLine returns nil for a line without a key.
func parseLine(line string) (*Key, error) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.FieldsFunc(line, blank)
	if len(fields) == 0 {
		return nil, nil
	}
	id, err := ParseID(fields[0])
	if err != nil {
		return nil, err
	}
	if len(fields) == 1 {
		return nil, errors.New("no secret behind the key id")
	}
	secret, err := parseSecret(fields[1])
	if err != nil {
		return nil, err
	}
	clients, err := parseClients(fields[2:])
	if err != nil {
		return nil, err
	}
	return newKey(id, secret, clients), nil
}

func blank(c rune) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// ParseID reads a key id. An error does not repeat it.
func ParseID(s string) (wire.ID, error) {
	if !validID(s) {
		return wire.ID{}, fmt.Errorf("key id: expected 1 to %d characters of A-Z a-z 0-9 . _ -, found %d bytes that are something else", len(wire.ID{}), len(s))
	}
	var id wire.ID
	copy(id[:], s)
	return id, nil
}

func validID(s string) bool {
	if len(s) == 0 || len(s) > len(wire.ID{}) {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func parseSecret(s string) ([]byte, error) {
	if len(s) < 2*SecretSize || len(s) > 2*maxSecret {
		return nil, fmt.Errorf("secret: expected %d to %d hex digits, found %d characters", 2*SecretSize, 2*maxSecret, len(s))
	}
	secret, err := hex.DecodeString(s)
	if err != nil {
		return nil, errors.New("secret: expected an even number of hex digits")
	}
	var seen [256]bool
	different := 0
	for _, c := range secret {
		if !seen[c] {
			seen[c] = true
			different++
		}
	}
	if different < minBytes {
		return nil, errors.New("secret: it repeats itself and is easily guessed: expected a random one, as cm_ctl keygen makes it")
	}
	return secret, nil
}

func parseClients(words []string) ([]netip.Prefix, error) {
	var clients []netip.Prefix
	for i, w := range words {
		p, err := ParseClient(w)
		if err != nil {
			return nil, fmt.Errorf("client address %d: %w", i+1, err)
		}
		clients = append(clients, p)
	}
	return clients, nil
}

// ParseClient reads an address or a CIDR block. Bits behind the prefix are cleared,
// as watchdog.clients does. An error does not repeat the word.
func ParseClient(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return p.Masked(), nil
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.Prefix{}, errors.New("expected an address or a CIDR block like 192.0.2.0/24 or 2001:db8::/64")
}

// Line is the line of a key file for a key, with its line feed. The secret comes
// from crypto/rand.
func Line(id wire.ID, secret [SecretSize]byte, clients []netip.Prefix) string {
	words := []string{Printable(id), hex.EncodeToString(secret[:])}
	for _, p := range slices.Compact(slices.Clone(clients)) {
		words = append(words, p.String())
	}
	return strings.Join(words, " ") + "\n"
}
