// SPDX-License-Identifier: Apache-2.0

// Package e2e has the end-to-end tests: one test for each row of the failure
// table, named after it, with real processes, real PostgreSQL and a real kernel
// on the hosts of a lab (agent/agenttest).
//
// A row runs in several variants: at 100 ms x 3 over TCP and IPv4 and over UDP and
// IPv6, at whole seconds as the seed has them, some on tap devices, and once more
// with the part under test switched off. That last one must fail, else the row
// proves nothing. What a row measured and how the switched-off one failed is printed
// when all tests have ended.
//
// Verdicts are seen from outside: by the error that an application gets, by
// pg_stat_activity as another session sees it, by the kernel's receive time of
// the last heartbeat; never by our own logs. Faults are injected outside our
// processes.
package e2e
