// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Certificate makes a certificate for names and addresses that is valid for a day,
// and its key, both in PEM form. It is its own authority.
func Certificate(names []string, addrs ...netip.Addr) (crt, key []byte, err error) {
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, DNSNames: names,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, a := range addrs {
		form.IPAddresses = append(form.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, pair.Public(), pair)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// EnableTLS lets the instance speak TLS too, from now on, with a certificate that
// names every host of the lab, by name and addresses, and localhost; so it serves
// standbys that are copied from the instance as well. It returns the file of its
// authority, which everybody may read.
func (p *Postgres) EnableTLS() (rootcert string, err error) {
	names, addrs := []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, h := range p.Host.lab.Hosts() {
		names, addrs = append(names, h.Name), append(addrs, h.Addr4, h.Addr6)
	}
	crt, key, err := Certificate(names, addrs...)
	if err != nil {
		return "", err
	}
	rootcert = filepath.Join(p.Host.lab.Dir, fmt.Sprintf("%s-%s.crt", p.Host.Name, p.Name))
	return rootcert, errors.Join(
		os.WriteFile(rootcert, crt, 0o644),
		p.writeFile("server.crt", string(crt)),
		p.writeFile("server.key", string(key)),
		p.SetConf(map[string]string{"ssl": "on"}),
		p.Reload(),
	)
}
