// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/listen"
)

const (
	requestLimit = 5 * time.Second
	answerLimit  = 15 * time.Second
	idleLimit    = 2 * time.Minute // more than the usual time between two scrapes
	maxHeader    = 8 << 10
	maxInFlight  = 4
	maxConns     = 16
	// retryEvery is the pause before an address is tried again.
	retryEvery = 5 * time.Second
)

// Options say what to serve.
type Options struct {
	Program  string // the beginning of its metrics' names
	Version  string
	Listen   []conf.Endpoint
	Families []*Family
	// Fill puts the values of all families into a sink. It returns when ctx ends, and
	// is called by one goroutine at a time.
	Fill func(context.Context, *Sink) error
	Log  *slog.Logger
}

// Serve serves until ctx ends. What cannot be listened on is told once and tried again.
func Serve(ctx context.Context, o Options) {
	handler, err := Handler(o)
	if err != nil {
		o.Log.Error("cannot serve metrics", "err", err)
		return
	}
	s := &server{handler: handler, log: o.Log, conns: newConns(maxConns), retry: retryEvery}
	var running sync.WaitGroup
	for _, at := range o.Listen {
		running.Go(func() { s.run(ctx, at) })
	}
	running.Wait()
}

const welcome = "The metrics are at /metrics.\n"

// Handler answers /metrics, and nothing else but a pointer to it.
func Handler(o Options) (http.Handler, error) {
	r, err := registry(o.Program, o.Version, &collector{families: o.Families, fill: o.Fill, now: time.Now})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxInFlight,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, welcome) })
	return mux, nil
}

// server serves one handler at several places.
type server struct {
	handler http.Handler
	log     *slog.Logger
	conns   *conns // of all places together
	retry   time.Duration
}

// run serves at one place until ctx ends.
func (s *server) run(ctx context.Context, at conf.Endpoint) {
	told := ""
	for ctx.Err() == nil {
		err := s.serve(ctx, at)
		if ctx.Err() != nil {
			return
		}
		if err.Error() != told {
			told = err.Error()
			s.log.Error("cannot serve metrics", "local", at.String(), "err", err, "expected", "an own address and a free port in metrics_listen")
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.retry):
		}
	}
}

// serve listens and serves until ctx ends, or an error that is never nil.
func (s *server) serve(ctx context.Context, at conf.Endpoint) error {
	resolving, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	addresses, err := listen.Resolve(resolving, []string{at.Host})
	if err != nil {
		return err
	}
	listeners, _, err := listen.TCP(addresses, at.Port, net.KeepAliveConfig{Enable: true})
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: requestLimit, ReadTimeout: requestLimit, WriteTimeout: answerLimit,
		IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader, ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { _ = web.Close() })
	defer stop()
	s.log.Info("serving metrics", "local", at.String())
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- web.Serve(s.conns.bound(l)) }()
	}
	err = errors.New("no listener") // not with addresses
	for range listeners {
		err = <-failed
		_ = web.Close() // one without the others is not what was asked for
	}
	return err
}
