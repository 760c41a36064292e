// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// keyName is the key file in conmgr's directory unless -o names another one.
const keyName = "heartbeat.key"

// randomID names a key so that no two have the same name.
func randomID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return "key-" + hex.EncodeToString(b[:])
}

// checkKey checks what belongs to keygen alone.
func (o *options) checkKey(id string, clients []string) (err error) {
	if o.id, err = key.ParseID(id); err != nil {
		return fmt.Errorf("option --id: %w", err)
	}
	for _, word := range clients {
		p, err := key.ParseClient(word)
		if err != nil {
			return fmt.Errorf("client %.64q: %w", word, err)
		}
		o.clients = append(o.clients, p)
	}
	if o.output != "" {
		return nil
	}
	if o.directory == "" {
		return errors.New("no key file: expected -o, or -D or the environment variable CMDATA")
	}
	o.output = filepath.Join(o.directory, keyName)
	return nil
}

// keygen writes a new key and says what to do with it. It never prints the secret.
func keygen(e env, o options) int {
	path, err := filepath.Abs(o.output)
	if err != nil {
		return fail(e, fmt.Errorf("key file %s: %w", o.output, err))
	}
	var secret [key.SecretSize]byte
	_, _ = rand.Read(secret[:]) // never fails
	line := key.Line(o.id, secret, o.clients)
	if o.append {
		return addKey(e, o, path, line)
	}
	if err := keyfile.Create(path, line); err != nil {
		return fail(e, err)
	}
	fmt.Fprintf(e.stdout, newKeyHelp, key.Printable(o.id), path, describeClients(o), path)
	return cli.ExitOK
}

func addKey(e env, o options, path, line string) int {
	ring, err := keyfile.Append(path, line)
	if err != nil {
		return fail(e, err)
	}
	fmt.Fprintf(e.stdout, addedKeyHelp, key.Printable(o.id), path, describeClients(o), len(ring.Keys()), ring.First())
	return cli.ExitOK
}

func describeClients(o options) string {
	if len(o.clients) == 0 {
		return "any address"
	}
	var words []string
	for _, p := range o.clients {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}

const newKeyHelp = `key %s is in %s, for conmgrs at %s

What to do next:
  1. Copy the file to each database host, unread by others (scp -p), for the user
     that pgwatchdog runs as, mode 0600.
  2. There, set key_file in /etc/pgconmgr/pgwatchdog.conf (or --key-file) to its
     path and restart pgwatchdog. From then on it refuses conmgrs without a key.
  3. Here, set heartbeat_key_file = '%s' in conmgr.conf
     and use cm_ctl restart.
`

const addedKeyHelp = `key %s is added to %s, for conmgrs at %s
It is key %d of the file; a conmgr uses the first one, %s.

To change to it without losing a session:
  1. On each database host, have its line in the key file and reload pgwatchdog.
  2. On each client host, have its line first and the old one below it, and use
     cm_ctl restart.
  3. When no session uses the old key, remove the old line on the database hosts,
     reload pgwatchdog, and remove it on the client hosts.
`
