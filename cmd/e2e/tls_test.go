// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// enableTLS lets an instance speak TLS too, with a certificate that nobody can
// verify.
func (w *world) enableTLS(p *agenttest.Postgres) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db1"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	w.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	w.writeInData(p, "server.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	w.writeInData(p, "server.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	w.must(p.SetConf(map[string]string{"ssl": "on"}))
	w.must(p.Reload())
}

// writeInData makes a file of the data directory that its owner alone can read.
func (w *world) writeInData(p *agenttest.Postgres, name string, text []byte) {
	w.Helper()
	path := filepath.Join(p.DataDir, name)
	w.must(os.WriteFile(path, text, 0o600))
	info, err := os.Stat(p.DataDir)
	w.must(err)
	owner := info.Sys().(*syscall.Stat_t)
	w.must(os.Chown(path, int(owner.Uid), int(owner.Gid)))
}

// overTLS opens connections through the client's conmgr, encrypted end to end.
func (w *world) overTLS(port int) func() *app {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres connect_timeout=5 sslmode=require", port))
	w.must(err)
	cfg.DialFunc = w.client.Dial
	return func() *app {
		w.Helper()
		var conn *pgx.Conn
		w.expect("a TLS connection", func() (ok bool) {
			conn, err = pgx.ConnectConfig(w.Context(), cfg)
			return err == nil
		})
		return w.adopt(conn)
	}
}
