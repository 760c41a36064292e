// SPDX-License-Identifier: Apache-2.0

// Package metrics serves the figures of a daemon to Prometheus, over HTTP at
// /metrics. It is the only one that knows Prometheus: a program declares its metrics
// as [Family] values, and fills a [Sink] with what they are now whenever somebody
// looks. Nothing is counted here, so that metrics, SHOW STATS and SHOW STATUS say the
// same.
//
// Names follow Prometheus' conventions: seconds, _total for what only grows, a label
// where one thing has several values. Labels have few values, all known in advance:
// states, reasons, targets, and configured instances; never addresses of clients.
//
// Whoever reaches the port can read, without a password; nothing can be changed. The
// server bounds what a client can cost: sixteen connections in all, the oldest makes
// place for the seventeenth; ten looks a second, whoever looks more often gets what
// the last one saw; five seconds for a request, fifteen for an answer.
package metrics
