// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// tool runs one of PostgreSQL's programs on the instance's host.
func (p *Postgres) tool(ctx context.Context, name string, args ...string) error {
	cmd := p.Host.Command(ctx, filepath.Join(p.bin, name), args...)
	cmd.User, cmd.Dir = postgresUser, "/"
	_, err := cmd.Output()
	return err
}

// baseBackup fills the data directory from a running instance and leaves a
// standby.signal.
func (p *Postgres) baseBackup(ctx context.Context, from *Postgres) error {
	err := p.tool(ctx, "pg_basebackup", "-D", p.DataDir, "-d", from.conninfo(p.Host),
		"-X", "stream", "-c", "fast", "--no-sync", "--no-manifest")
	if err != nil {
		return err
	}
	return p.writeFile("standby.signal", "")
}

// Promote makes a standby the primary and returns when it accepts writes.
func (p *Postgres) Promote(ctx context.Context) (Effect, error) {
	return timed(func() error {
		if err := p.Exec(ctx, "SELECT pg_catalog.pg_promote(false)"); err != nil {
			return err
		}
		return poll(ctx, 30*time.Second, "promotion of "+p.Host.Name, func() (bool, error) {
			standby, err := p.InRecovery(ctx)
			return !standby, err
		})
	})
}

// InRecovery reports whether the instance is a standby.
func (p *Postgres) InRecovery(ctx context.Context) (bool, error) {
	values, err := p.Query(ctx, "SELECT pg_catalog.pg_is_in_recovery()")
	if err != nil {
		return false, err
	}
	return values[0] == "t", nil
}

// WaitStreaming waits until the standby receives WAL from its primary.
func (p *Postgres) WaitStreaming(ctx context.Context) error {
	return poll(ctx, 30*time.Second, "streaming to "+p.Host.Name, func() (bool, error) {
		values, err := p.Query(ctx, "SELECT status FROM pg_catalog.pg_stat_wal_receiver")
		return len(values) == 1 && values[0] == "streaming", err
	})
}

// Rejoin makes the instance, whatever became of it, a standby of primary: its
// server is stopped, its data rewound or, where that is impossible, taken anew.
// It says which.
func (p *Postgres) Rejoin(ctx context.Context, primary *Postgres) (how string, err error) {
	if err := p.Stop(ctx, Immediate); err != nil {
		return "", err
	}
	if err := waitUnused(ctx, p.Host.cgroup, p.DataDir); err != nil {
		return "", err
	}
	conf, err := os.ReadFile(filepath.Join(p.DataDir, "postgresql.conf"))
	if err != nil {
		return "", err
	}
	// Until its first checkpoint a promoted instance's control file names the
	// old timeline, and pg_rewind would see nothing to do.
	if err := primary.Exec(ctx, "CHECKPOINT"); err != nil {
		return "", err
	}
	how = "rewound"
	rewound := p.tool(ctx, "pg_rewind", "-D", p.DataDir, "--source-server", primary.conninfo(p.Host)+" dbname=postgres", "--no-sync")
	if rewound != nil {
		how = "copied"
		if err := removeSharedMemory(p.DataDir); err != nil {
			return "", err
		}
		if err := os.RemoveAll(p.DataDir); err != nil {
			return "", err
		}
		if err := p.baseBackup(ctx, primary); err != nil {
			return "", fmt.Errorf("%w (and before: %w)", err, rewound)
		}
	}
	// Both ways brought the primary's own configuration.
	if err := p.writeFile("postgresql.conf", string(conf)); err != nil {
		return "", err
	}
	if err := p.writeFile("standby.signal", ""); err != nil {
		return "", err
	}
	if err := p.SetConf(map[string]string{"primary_conninfo": primary.conninfo(p.Host)}); err != nil {
		return "", err
	}
	return how, p.Start(ctx)
}
