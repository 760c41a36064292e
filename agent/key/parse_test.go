// SPDX-License-Identifier: Apache-2.0

package key

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	r := mustParse(t, "# comment\r\n\n \t\r\nfirst\t"+secretA+" # of host a\n"+
		"  second  "+strings.ToUpper(secretB)+"\t10.1.2.3/8 192.0.2.7 ::ffff:192.0.2.8 2001:DB8::1/32\r\nlast "+secretA+secretB)
	var got []string
	for _, k := range r.Keys() {
		got = append(got, fmt.Sprint(k, k.Clients()))
	}
	want := "first[] second[10.0.0.0/8 192.0.2.7/32 192.0.2.8/32 2001:db8::/32] last[]"
	if s := strings.ReplaceAll(strings.Join(got, " "), " [", "["); s != want {
		t.Errorf("keys %s, want %s", s, want)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	weak := strings.Repeat("0123456789abcdef", 4)
	many := ""
	for i := range MaxKeys + 1 {
		many += fmt.Sprintf("key%d %s\n", i, secretA)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "keys: no key in it"},
		{"comments only", "# a\n\n#b", "keys: no key in it"},
		{"id alone", "\na\n", "keys:2: no secret behind the key id"},
		{"commented secret", "a #" + secretA, "keys:1: no secret behind the key id"},
		{"long id", strings.Repeat("a", 17) + " " + secretA, "keys:1: key id: expected 1 to 16 characters of A-Z a-z 0-9 . _ -, found 17 bytes"},
		{"id with a slash", "a/b " + secretA, "keys:1: key id: expected"},
		{"id not ASCII", "schlüssel " + secretA, "keys:1: key id: expected"},
		{"turned round", secretA + " a", "keys:1: key id: expected 1 to 16 characters of A-Z a-z 0-9 . _ -, found 64 bytes"},
		{"short secret", "a " + secretA[:62], "keys:1: secret: expected 64 to 256 hex digits, found 62 characters"},
		{"long secret", "a " + strings.Repeat(secretA, 4) + "00", "keys:1: secret: expected 64 to 256 hex digits, found 258 characters"},
		{"odd secret", "a " + secretA + "0", "keys:1: secret: expected an even number of hex digits"},
		{"no hex", "a " + secretA[:63] + "g", "keys:1: secret: expected an even number of hex digits"},
		{"weak secret", "a " + weak, "keys:1: secret: it repeats itself"},
		{"twice", "a " + secretA + "\nb " + secretA + "\na " + secretB, "keys:3: key id a stands in the file twice"},
		{"client", "a " + secretA + " 10.0.0.0/8 db1", "keys:1: client address 2: expected an address or a CIDR block"},
		{"mapped client", "a " + secretA + " ::ffff:10.0.0.0/104", "keys:1: client address 1: expected"},
		{"client with a zone", "a " + secretA + " fe80::1%eth0", "keys:1: client address 1: expected"},
		{"secret in two parts", "a " + secretA + " " + secretB, "keys:1: client address 1: expected"},
		{"NUL", "a\x00 " + secretA, "keys:1: key id: expected"},
		{"too many", many, "keys:65: too many keys: expected at most 64"},
		{"too large", strings.Repeat("#", MaxFile+1), "keys: expected at most 65536 bytes"},
		{"all lines are told", "a\nb\n", "keys:1: no secret behind the key id\nkeys:2: no secret behind the key id"},
	} {
		r, err := Parse("keys", []byte(tt.text))
		if r != nil || err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			continue
		}
		for _, secret := range []string{secretA, secretB, weak} {
			if strings.Contains(err.Error(), secret[:16]) {
				t.Errorf("%s: the error tells the secret: %v", tt.name, err)
			}
		}
	}
	_, err := Parse("keys", []byte(strings.Repeat("a\n", 20000)))
	if n := strings.Count(err.Error(), "\n") + 1; n != maxErrors {
		t.Errorf("%d errors at once, want %d", n, maxErrors)
	}
}
