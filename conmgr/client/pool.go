// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// NewPool is pgxpool.New through conmgr. At a fault the idle connections to the
// lost instance leave the pool at once, and those in use with their next error.
func NewPool(ctx context.Context, connString string) (*pgxpool.Pool, error) {
	return std.NewPool(ctx, connString)
}

// NewPoolWithConfig is pgxpool.NewWithConfig through conmgr; see [NewPool].
func NewPoolWithConfig(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	return std.NewPoolWithConfig(ctx, cfg)
}

// ConfigurePool prepares the configuration of a pool that somebody else makes; see
// [Dialer.ConfigurePool].
func ConfigurePool(cfg *pgxpool.Config) { std.ConfigurePool(cfg) }

// NewPool is pgxpool.New through conmgr; see the function of this name.
func (d *Dialer) NewPool(ctx context.Context, connString string) (*pgxpool.Pool, error) {
	cfg, err := ParsePoolConfig(connString)
	if err != nil {
		return nil, err
	}
	return d.NewPoolWithConfig(ctx, cfg)
}

// NewPoolWithConfig is pgxpool.NewWithConfig through conmgr. It leaves cfg alone.
func (d *Dialer) NewPoolWithConfig(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	cfg = cfg.Copy()
	s := new(sweeper)
	swept := *d
	swept.OnFault = func(f *FaultError) {
		s.sweep()
		if d.OnFault != nil {
			d.OnFault(f)
		}
	}
	swept.ConfigurePool(cfg)
	s.mu.Lock() // a connection may be lost before the pool is known
	defer s.mu.Unlock()
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	s.pool = pool
	return pool, err
}

// ConfigurePool sets BeforeConnect and PrepareConn of a pool's configuration; what
// they were is still called, BeforeConnect first, PrepareConn or BeforeAcquire
// last. Lost connections are never handed out; idle ones leave the pool when they
// would have been. See [Dialer.NewPool] for more.
func (d *Dialer) ConfigurePool(cfg *pgxpool.Config) {
	before, prepare := cfg.BeforeConnect, cfg.PrepareConn
	//lint:ignore SA1019 a program that still sets it gets what it asked for
	acquire := cfg.BeforeAcquire
	from := originOf(cfg.ConnConfig)
	cfg.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		if before != nil {
			if err := before(ctx, c); err != nil {
				return err
			}
		}
		return d.prepare(ctx, c, from)
	}
	cfg.PrepareConn = func(ctx context.Context, c *pgx.Conn) (bool, error) {
		switch {
		case isLost(c):
			return false, nil
		case ctx.Value(sweepKey{}) != nil:
			return true, nil
		case prepare != nil:
			return prepare(ctx, c)
		case acquire != nil:
			return acquire(ctx, c), nil
		}
		return true, nil
	}
}

// isLost reports whether a fault has closed the connection.
func isLost(c *pgx.Conn) bool {
	w := WatchOf(c.PgConn())
	return w != nil && w.fault() != nil
}

// sweepKey marks the context of a sweep, in which nobody acquires a connection.
type sweepKey struct{}

// sweeper takes lost connections out of a pool.
type sweeper struct {
	mu    sync.Mutex // guards the following; held while the pool is made
	pool  *pgxpool.Pool
	going bool // a sweep
	again bool // another fault came meanwhile
}

// sweep makes pgxpool look at all idle connections. Thousands of faults at once
// make few sweeps.
func (s *sweeper) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.going {
		s.again = true
		return
	}
	if s.pool == nil {
		return
	}
	s.going = true
	go s.run()
}

func (s *sweeper) run() {
	for more := true; more; {
		ctx := context.WithValue(context.Background(), sweepKey{}, true)
		for _, c := range s.pool.AcquireAllIdle(ctx) { // destroys what PrepareConn refuses
			c.Release()
		}
		s.mu.Lock()
		more = s.again
		s.again, s.going = false, more
		s.mu.Unlock()
	}
}
